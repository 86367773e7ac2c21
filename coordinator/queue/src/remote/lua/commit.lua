#!lua
-- Carries out a commit as a whole, or nothing.
-- KEYS: head, inbox, log, boxes, then the mailboxes.
-- ARGV: epoch, holder, id, cursor, bounds (records, record bytes, mails and bytes of a mailbox, bytes of all mails,
-- mailboxes), the record and the event it builds on ('' for any), the hash of the event at the cursor ('' for any; see
-- post.lua), number of records, {record, checksum}, number of mails, {mailbox, mail}, number of closings, {mailbox},
-- number of removals, {mailbox}; a mailbox is its place among KEYS.
-- A value of boxes: "closed bytes-ever bytes-forgotten last-forgotten".
local HEAD, INBOX, LOG, BOXES = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local function str(n) return string.format('%d', n) end
local names = {'epoch', 'holder', 'commit', 'commit_at', 'commit_dropped', 'cursor', 'event', 'record', 'record_bytes',
  'record_bytes_done', 'checkpoint', 'mail', 'mail_bytes'}
local values, head = redis.call('HMGET', HEAD, unpack(names)), {}
for i, name in ipairs(names) do
  head[name] = values[i]
end
local function num(name) return tonumber(head[name] or 0) end

if head.commit == ARGV[3] then
  return {'AGAIN', num('commit_at'), num('commit_dropped')}
end
local holder = head.holder or ''
if num('epoch') ~= tonumber(ARGV[1]) or holder == '' or (ARGV[2] ~= '' and ARGV[2] ~= holder) then
  return {'FENCED', num('epoch')}
end
local cursor, committed = tonumber(ARGV[4]), num('cursor')
if ARGV[11] ~= '' and (tonumber(ARGV[11]) ~= num('record') or tonumber(ARGV[12]) ~= committed) then
  return {'GAP', num('record'), committed}
end
if cursor < committed or cursor > num('event') then
  return {'RANGE', committed, num('event')}
end
local last
if cursor > committed then
  last = redis.call('XRANGE', INBOX, '0-' .. str(cursor), '0-' .. str(cursor))[1][2]
  if ARGV[13] ~= '' and last[6] ~= ARGV[13] then
    return {'GAP', num('record'), committed}
  end
end

-- Check everything before the first write.
local at = 14
local records, record_first = tonumber(ARGV[at]), at + 1
local record, record_bytes = num('record'), num('record_bytes')
local size = record_bytes - num('record_bytes_done')
for i = 0, records - 1 do
  size = size + #ARGV[record_first + 2 * i]
end
if record - num('checkpoint') + records > tonumber(ARGV[5]) then
  return {'FULL', 'records', ARGV[5]}
end
if size > tonumber(ARGV[6]) then
  return {'FULL', 'record_bytes', ARGV[6]}
end
at = record_first + 2 * records
local mails, mail_first = tonumber(ARGV[at]), at + 1
at = mail_first + 2 * mails
local closings, closing_first = tonumber(ARGV[at]), at + 1
at = closing_first + closings
local removals, removal_first = tonumber(ARGV[at]), at + 1

local boxes, number, mail_bytes = {}, redis.call('HLEN', BOXES), num('mail_bytes')
-- All mailboxes at once, as many as Lua's stack takes.
local PIECE, known = 1000, {}
for first = 5, #KEYS, PIECE do
  local last = math.min(first + PIECE - 1, #KEYS)
  for i, value in ipairs(redis.call('HMGET', BOXES, unpack(KEYS, first, last))) do
    known[first + i - 1] = value
  end
end
local function open(i)
  if boxes[i] then
    return boxes[i]
  end
  local value, box = known[i], nil
  if value then
    local closed, ever, gone, last = string.match(value, '^(%d) (%d+) (%d+) (%d+)$')
    box = {closed = closed == '1', ever = tonumber(ever), gone = tonumber(gone), last = last,
      mails = redis.call('XLEN', KEYS[i])}
  else
    number = number + 1
    if number > tonumber(ARGV[10]) then
      return nil
    end
    box = {closed = false, ever = 0, gone = 0, last = '0', mails = 0}
  end
  box.size, boxes[i] = box.ever - box.gone, box
  return box
end
for m = 0, mails - 1 do
  local i, bytes = tonumber(ARGV[mail_first + 2 * m]), #ARGV[mail_first + 2 * m + 1]
  local box = open(i)
  if not box then
    return {'FULL', 'mailboxes', ARGV[10]}
  end
  if not box.closed then
    box.mails, box.size, mail_bytes = box.mails + 1, box.size + bytes, mail_bytes + bytes
    if box.mails > tonumber(ARGV[7]) then
      return {'FULL', 'mailbox', ARGV[7], i}
    end
    if box.size > tonumber(ARGV[8]) then
      return {'FULL', 'mailbox_bytes', ARGV[8], i}
    end
    if mail_bytes > tonumber(ARGV[9]) then
      return {'FULL', 'mail_bytes', ARGV[9]}
    end
  end
end
for c = 0, closings - 1 do
  if not open(tonumber(ARGV[closing_first + c])) then
    return {'FULL', 'mailboxes', ARGV[10]}
  end
end

-- From here on nothing fails.
if cursor > committed then
  redis.call('HSET', HEAD, 'cursor', str(cursor), 'event_bytes_done', last[4])
  redis.call('XTRIM', INBOX, 'MINID', '0-' .. str(cursor + 1))
end
-- Many records in one entry, which is what costs; no more than Lua's stack and a stream's node take.
local ENTRY_RECORDS, ENTRY_BYTES, done = 256, 1048576, 0
while done < records do
  local fields, n, start = {}, 0, record_bytes
  repeat
    local bytes = ARGV[record_first + 2 * done]
    fields[n + 1], fields[n + 2], fields[n + 3], fields[n + 4] = 'd', bytes, 'h', ARGV[record_first + 2 * done + 1]
    n, done, record, record_bytes = n + 4, done + 1, record + 1, record_bytes + #bytes
  until done == records or n == 4 * ENTRY_RECORDS or record_bytes - start >= ENTRY_BYTES
  fields[n + 1], fields[n + 2] = 't', str(record_bytes)
  redis.call('XADD', LOG, '0-' .. str(record), unpack(fields))
end
local mail, dropped = num('mail'), 0
for m = 0, mails - 1 do
  local i, bytes = tonumber(ARGV[mail_first + 2 * m]), ARGV[mail_first + 2 * m + 1]
  local box = boxes[i]
  if box.closed then
    dropped = dropped + 1
  else
    mail, box.ever = mail + 1, box.ever + #bytes
    redis.call('XADD', KEYS[i], '0-' .. str(mail), 'd', bytes, 't', str(box.ever))
  end
end
for c = 0, closings - 1 do
  boxes[tonumber(ARGV[closing_first + c])].closed = true
end
local fields = {}
for i, box in pairs(boxes) do
  local closed = box.closed and '1' or '0'
  fields[#fields + 1] = KEYS[i]
  fields[#fields + 1] = closed .. ' ' .. str(box.ever) .. ' ' .. str(box.gone) .. ' ' .. box.last
  if #fields == 2 * PIECE then
    redis.call('HSET', BOXES, unpack(fields))
    fields = {}
  end
  redis.call('PUBLISH', KEYS[i], '')
end
if #fields > 0 then
  redis.call('HSET', BOXES, unpack(fields))
end
for r = 0, removals - 1 do
  local key = KEYS[tonumber(ARGV[removal_first + r])]
  local value = redis.call('HGET', BOXES, key)
  if value then
    local ever, gone = string.match(value, '^%d (%d+) (%d+)')
    mail_bytes = mail_bytes - (tonumber(ever) - tonumber(gone))
    redis.call('HDEL', BOXES, key)
    redis.call('UNLINK', key)
  end
end
redis.call('HSET', HEAD, 'record', str(record), 'record_bytes', str(record_bytes), 'mail', str(mail),
  'mail_bytes', str(mail_bytes), 'commit', ARGV[3], 'commit_at', str(record), 'commit_dropped', dropped)
return {'OK', record, dropped}

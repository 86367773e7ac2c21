#!lua flags=allow-oom
-- Deletes the mails of a mailbox up to a place. KEYS: head, boxes, mailbox. ARGV: the place.
local value = redis.call('HGET', KEYS[2], KEYS[3])
local entry = redis.call('XREVRANGE', KEYS[3], '0-' .. ARGV[1], '-', 'COUNT', 1)[1]
if not value or not entry then
  return 0
end
local closed, ever, gone = string.match(value, '^(%d) (%d+) (%d+)')
local upto, total = string.match(entry[1], '%-(%d+)$'), tonumber(entry[2][4])
redis.call('XTRIM', KEYS[3], 'MINID', '0-' .. string.format('%d', tonumber(upto) + 1))
redis.call('HSET', KEYS[2], KEYS[3], closed .. ' ' .. ever .. ' ' .. entry[2][4] .. ' ' .. upto)
redis.call('HINCRBY', KEYS[1], 'mail_bytes', string.format('%d', tonumber(gone) - total))
return 0

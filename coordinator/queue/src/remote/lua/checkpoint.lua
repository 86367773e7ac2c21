#!lua flags=allow-oom
-- Puts a checkpoint in the place of the records up to a position. Allowed when memory is short: it makes room.
-- KEYS: head, log, checkpoint. ARGV: epoch, holder, position, bytes, their BLAKE3.
local head = redis.call('HMGET', KEYS[1], 'epoch', 'holder', 'checkpoint', 'record')
local epoch, holder, upto = tonumber(head[1] or 0), head[2] or '', tonumber(ARGV[3])
local last, record = tonumber(head[3] or 0), tonumber(head[4] or 0)
if epoch ~= tonumber(ARGV[1]) or holder == '' or (ARGV[2] ~= '' and ARGV[2] ~= holder) then
  return {'FENCED', epoch}
end
if upto < last or upto > record then
  return {'RANGE', last, record}
end
if upto > last then
  -- An entry has the place of its last record, and ends in the bytes of all records up to it: the first one from here on
  -- has the last record that goes, and stays if there are others after that.
  local entry = redis.call('XRANGE', KEYS[2], '0-' .. ARGV[3], '+', 'COUNT', 1)[1]
  local place, fields = tonumber(string.match(entry[1], '%-(%d+)$')), entry[2]
  -- An entry from before it had many records has its checksum last.
  local bytes = tonumber(fields[3] == 't' and fields[4] or fields[#fields])
  for i = 1, place - upto do
    bytes = bytes - #fields[#fields - 4 * i]
  end
  redis.call('HSET', KEYS[1], 'record_bytes_done', string.format('%d', bytes))
  redis.call('XTRIM', KEYS[2], 'MINID', '0-' .. string.format('%d', place == upto and upto + 1 or place))
end
redis.call('SET', KEYS[3], ARGV[4])
redis.call('HSET', KEYS[1], 'checkpoint', ARGV[3], 'checkpoint_hash', ARGV[5])
return {'OK'}

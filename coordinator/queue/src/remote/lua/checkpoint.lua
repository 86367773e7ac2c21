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
  local entry = redis.call('XRANGE', KEYS[2], '0-' .. ARGV[3], '0-' .. ARGV[3])
  redis.call('HSET', KEYS[1], 'record_bytes_done', entry[1][2][4])
  redis.call('XTRIM', KEYS[2], 'MINID', '0-' .. string.format('%d', upto + 1))
end
redis.call('SET', KEYS[3], ARGV[4])
redis.call('HSET', KEYS[1], 'checkpoint', ARGV[3], 'checkpoint_hash', ARGV[5])
return {'OK'}

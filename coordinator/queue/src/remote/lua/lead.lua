#!lua flags=allow-oom
-- Takes or renews the lease. KEYS: head. ARGV: holder, ttl (ms). Returns the epoch, or nil while somebody else has it.
-- Places of mails begin at 2^32 times the epoch: after a return to an older state and a new epoch none is given out twice,
-- so that readers miss nothing.
local now = redis.call('TIME')
now = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local head = redis.call('HMGET', KEYS[1], 'epoch', 'holder', 'until', 'mail')
local epoch, holder = tonumber(head[1] or 0), head[2] or ''
if holder ~= ARGV[1] then
  if holder ~= '' and tonumber(head[3] or 0) > now then
    return nil
  end
  epoch = epoch + 1
  if epoch * 4294967296 > tonumber(head[4] or 0) then
    redis.call('HSET', KEYS[1], 'mail', string.format('%d', epoch * 4294967296))
  end
end
redis.call('HSET', KEYS[1], 'epoch', epoch, 'holder', ARGV[1], 'until', string.format('%d', now + tonumber(ARGV[2])))
return epoch

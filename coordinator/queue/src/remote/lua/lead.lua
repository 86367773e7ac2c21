#!lua flags=allow-oom
-- Takes or renews the lease. KEYS: head. ARGV: holder, ttl (ms). Returns the epoch, or nil while somebody else has it.
local now = redis.call('TIME')
now = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local head = redis.call('HMGET', KEYS[1], 'epoch', 'holder', 'until')
local epoch, holder = tonumber(head[1] or 0), head[2] or ''
if holder ~= ARGV[1] then
  if holder ~= '' and tonumber(head[3] or 0) > now then
    return nil
  end
  epoch = epoch + 1
end
redis.call('HSET', KEYS[1], 'epoch', epoch, 'holder', ARGV[1], 'until', string.format('%.0f', now + tonumber(ARGV[2])))
return epoch

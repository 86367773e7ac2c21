#!lua flags=no-writes
-- Who leads. KEYS: head. Returns {epoch, holder, ms left}, or nil.
local now = redis.call('TIME')
now = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local head = redis.call('HMGET', KEYS[1], 'epoch', 'holder', 'until')
local left = tonumber(head[3] or 0) - now
if (head[2] or '') == '' or left <= 0 then
  return nil
end
return {tonumber(head[1]), head[2], left}

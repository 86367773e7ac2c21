#!lua flags=allow-oom
-- Ends the lease of an epoch. KEYS: head. ARGV: epoch, holder ('' if the caller does not know it).
local head = redis.call('HMGET', KEYS[1], 'epoch', 'holder')
if head[1] == ARGV[1] and (ARGV[2] == '' or ARGV[2] == head[2]) then
  redis.call('HSET', KEYS[1], 'holder', '', 'until', 0)
end
return 0

#!lua flags=allow-oom
-- Ends the lease of an epoch. KEYS: head. ARGV: epoch.
if redis.call('HGET', KEYS[1], 'epoch') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'holder', '', 'until', 0)
end
return 0

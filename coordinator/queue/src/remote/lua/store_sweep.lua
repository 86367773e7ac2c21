-- Makes trash of publications that began long ago, and lists trash. ARGV: age in seconds, page.
local old = redis.call('ZRANGEBYSCORE', INTENTS, '-inf', tonumber(time()[1]) - tonumber(ARGV[1]), 'LIMIT', 0, ARGV[2])
for _, location in ipairs(old) do
  redis.call('ZREM', INTENTS, location)
  add('reserved', -size_of(location))
  redis.call('ZADD', TRASH, time()[1], location)
end
return redis.call('ZRANGE', TRASH, 0, tonumber(ARGV[2]) - 1)

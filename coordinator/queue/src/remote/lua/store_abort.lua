-- Gives a publication up; its object becomes trash. ARGV: location.
if redis.call('ZREM', INTENTS, ARGV[1]) == 1 then
  add('reserved', -size_of(ARGV[1]))
  redis.call('ZADD', TRASH, time()[1], ARGV[1])
end
return {'OK'}

-- Notes that a reader found an artifact's bytes damaged. ARGV: where it read them, '' for here.
if redis.call('EXISTS', ARTIFACT) == 1 and (redis.call('HGET', ARTIFACT, 'l') or '') == ARGV[1] then
  redis.call('HSET', ARTIFACT, 'x', 1)
end
return {'OK'}

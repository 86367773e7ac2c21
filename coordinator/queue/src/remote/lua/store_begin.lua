-- Begins to publish an object. ARGV: holder, hash, size, bound on all bytes, location, lineage.
local n, location = ARGV[3], ARGV[5]
if is_fenced(6) then
  return {'REVOKED'}
end
if sound() then
  hold(ARGV[1], ARGV[2])
  return {'OK'}
end
if redis.call('ZSCORE', INTENTS, location) then
  return {'UPLOAD'}
end
if is_full(n, ARGV[4]) then
  return {'FULL', num('bytes') + num('reserved')}
end
redis.call('ZADD', INTENTS, time()[1], location)
add('reserved', tonumber(n))
return {'UPLOAD'}

-- Publishes an object that is uploaded. ARGV: holder, hash, size, location, lineage.
local holder, hash, n, location = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local is_mine = redis.call('ZREM', INTENTS, location) == 1
if is_mine then
  add('reserved', -tonumber(n))
end
if is_fenced(5) then
  if is_mine then
    redis.call('ZADD', TRASH, time()[1], location)
  end
  return {'REVOKED'}
end
if not is_mine then
  -- A repeated call, or swept away.
  if redis.call('ZSCORE', HOLDS, holder .. ' ' .. hash) then
    return {'OK'}
  end
  return {'SWEPT'}
end
if sound() then
  redis.call('ZADD', TRASH, time()[1], location)
  hold(holder, hash)
  return {'SPARE'}
end
create(n)
redis.call('HSET', ARTIFACT, 'l', location)
hold(holder, hash)
return {'OK'}

-- Publishes a small artifact. ARGV: holder, hash, size, bound on all bytes, bound on those in Redis, bytes, lineage.
local holder, hash, n = ARGV[1], ARGV[2], tonumber(ARGV[3])
if is_fenced(7) then
  return {'REVOKED'}
end
local known = redis.call('HMGET', ARTIFACT, 'n', 'x')
if known[1] and not known[2] then
  hold(holder, hash)
  return {'OK', n}
end
local head = redis.call('HMGET', HEAD, 'bytes', 'reserved', 'inline', 'artifacts')
for i = 1, 4 do
  head[i] = tonumber(head[i] or 0)
end
if head[1] + head[2] + (known[1] and 0 or n) > tonumber(ARGV[4]) then
  return {'FULL', head[1] + head[2]}
end
if head[3] + n > tonumber(ARGV[5]) then
  return {'OBJECT'}
end
if known[1] then
  -- In place of damaged bytes.
  discard(ARTIFACT)
  redis.call('HSET', ARTIFACT, 'd', ARGV[6])
  add('inline', n)
  hold(holder, hash)
  return {'OK', n}
end
-- As `create` and `hold` do it, in fewer steps: most artifacts come this way.
local is_held = redis.call('ZADD', HOLDS, 'NX', 0, holder .. ' ' .. hash)
redis.call('HSET', ARTIFACT, 'n', ARGV[3], 'r', is_held, 'd', ARGV[6])
redis.call('HSET', HEAD, 'bytes', string.format('%d', head[1] + n), 'inline', string.format('%d', head[3] + n),
  'artifacts', string.format('%d', head[4] + 1))
return {'OK', n}

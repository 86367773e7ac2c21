-- Publishes a small artifact. ARGV: holder, hash, size, bound on all bytes, bound on those in Redis, bytes, lineage.
local holder, hash, n = ARGV[1], ARGV[2], ARGV[3]
if is_fenced(7) then
  return {'REVOKED'}
end
if not sound() then
  if is_full(n, ARGV[4]) then
    return {'FULL', num('bytes') + num('reserved')}
  end
  if num('inline') + tonumber(n) > tonumber(ARGV[5]) then
    return {'OBJECT'}
  end
  create(n)
  redis.call('HSET', ARTIFACT, 'd', ARGV[6])
  add('inline', tonumber(n))
end
hold(holder, hash)
return {'OK', tonumber(n)}

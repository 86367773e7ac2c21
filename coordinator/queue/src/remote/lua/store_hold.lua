-- Holds an artifact that is there. ARGV: holder, hash, lineage.
if is_fenced(3) then
  return {'REVOKED'}
end
local n = redis.call('HGET', ARTIFACT, 'n')
if not n then
  return {'MISSING'}
end
hold(ARGV[1], ARGV[2])
return {'OK', tonumber(n)}

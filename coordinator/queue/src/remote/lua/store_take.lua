-- Holds artifacts that are there, and reads those that are in Redis. KEYS: the artifacts from the sixth on, in order.
-- ARGV: bound on the bytes read, then for each its holder, hash, bound on its size, number of names in its lineage, these
-- names.
-- Returns for each {'OK', size, bytes or false}, {'REVOKED'}, {'MISSING'} or {'LARGE', size}.
local room, at, answers = tonumber(ARGV[1]), 2, {}
for i = 6, #KEYS do
  -- What the functions before this are about.
  ARTIFACT = KEYS[i]
  local holder, hash, max, names = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local scores, fenced = redis.call('ZMSCORE', FENCES, unpack(ARGV, at + 4, at + 3 + names)), false
  for n = 1, names do
    fenced = fenced or scores[n]
  end
  at = at + 4 + names
  local n = tonumber(redis.call('HGET', ARTIFACT, 'n'))
  if fenced then
    answers[#answers + 1] = {'REVOKED'}
  elseif not n then
    answers[#answers + 1] = {'MISSING'}
  else
    hold(holder, hash)
    if n > max then
      answers[#answers + 1] = {'LARGE', n}
    else
      -- Not read before it is known to be sent: it may be large.
      local bytes = n <= room and redis.call('HGET', ARTIFACT, 'd')
      room = room - (bytes and #bytes or 0)
      answers[#answers + 1] = {'OK', n, bytes}
    end
  end
end
return answers

-- Ends up to a page of holds of a holder and those below it; fences the holder first if asked to.
-- ARGV: holder, what artifacts' keys begin with, page, fence ('1' or '0'), bound on fences, seconds that a fence lasts.
-- Returns {'OK', holds, artifacts, bytes, whether there are more, locations of objects that are trash now…}.
local holder, prefix, page = ARGV[1], ARGV[2], tonumber(ARGV[3])
if ARGV[4] == '1' then
  local now = tonumber(TIME[1]) * 1000000 + tonumber(TIME[2])
  redis.call('ZADD', FENCES, 'NX', string.format('%.0f', now), holder)
  redis.call('ZREMRANGEBYSCORE', FENCES, '-inf', '(' .. string.format('%.0f', now - tonumber(ARGV[6]) * 1000000))
  local surplus = redis.call('ZCARD', FENCES) - tonumber(ARGV[5])
  if surplus > 0 then
    redis.call('ZPOPMIN', FENCES, surplus)
  end
end
-- ' ' precedes, and '!' follows, whatever separates holder and hash; '0' follows '/'.
local held = redis.call('ZRANGEBYLEX', HOLDS, '[' .. holder .. ' ', '(' .. holder .. '!', 'LIMIT', 0, page)
if #held < page then
  local below = redis.call('ZRANGEBYLEX', HOLDS, '[' .. holder .. '/', '(' .. holder .. '0', 'LIMIT', 0, page - #held)
  for _, member in ipairs(below) do
    held[#held + 1] = member
  end
end
local artifacts, bytes, locations = 0, 0, {}
for _, member in ipairs(held) do
  redis.call('ZREM', HOLDS, member)
  local key = prefix .. string.match(member, ' (%x+)$')
  if redis.call('EXISTS', key) == 1 and redis.call('HINCRBY', key, 'r', -1) <= 0 then
    local n = tonumber(redis.call('HGET', key, 'n'))
    artifacts, bytes = artifacts + 1, bytes + n
    locations[#locations + 1] = discard(key) or nil
    redis.call('UNLINK', key)
    add('bytes', -n)
    add('artifacts', -1)
  end
end
local answer = {'OK', #held, artifacts, bytes, #held == page and 1 or 0}
for _, location in ipairs(locations) do
  answer[#answer + 1] = location
end
return answer

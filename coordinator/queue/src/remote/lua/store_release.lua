-- Ends up to a page of holds of holders and those below them; fences the holders first if asked to.
-- ARGV: what artifacts' keys begin with, page, fence ('1' or '0'), bound on fences, seconds that a fence lasts, holders.
-- Returns {'OK', holds, artifacts, bytes, whether there are more, locations of objects that are trash now…}.
local prefix, page = ARGV[1], tonumber(ARGV[2])
if ARGV[3] == '1' then
  local now = tonumber(TIME[1]) * 1000000 + tonumber(TIME[2])
  for h = 6, #ARGV do
    redis.call('ZADD', FENCES, 'NX', string.format('%.0f', now), ARGV[h])
  end
  redis.call('ZREMRANGEBYSCORE', FENCES, '-inf', '(' .. string.format('%.0f', now - tonumber(ARGV[5]) * 1000000))
  local surplus = redis.call('ZCARD', FENCES) - tonumber(ARGV[4])
  if surplus > 0 then
    redis.call('ZPOPMIN', FENCES, surplus)
  end
end
local held = {}
local function collect(from, to)
  if #held < page then
    for _, member in ipairs(redis.call('ZRANGEBYLEX', HOLDS, from, to, 'LIMIT', 0, page - #held)) do
      held[#held + 1] = member
    end
  end
end
for h = 6, #ARGV do
  -- ' ' precedes, and '!' follows, whatever separates holder and hash; '0' follows '/'.
  collect('[' .. ARGV[h] .. ' ', '(' .. ARGV[h] .. '!')
  collect('[' .. ARGV[h] .. '/', '(' .. ARGV[h] .. '0')
end
local holds, artifacts, bytes, locations = 0, 0, 0, {}
for _, member in ipairs(held) do
  -- Not twice, where one holder is below another.
  if redis.call('ZREM', HOLDS, member) == 1 then
    holds = holds + 1
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
end
local answer = {'OK', holds, artifacts, bytes, #held == page and 1 or 0}
for _, location in ipairs(locations) do
  answer[#answer + 1] = location
end
return answer

-- Ends up to a page of holds of holders and those below them; fences the holders first if asked to.
-- ARGV: what artifacts' keys begin with, page, fence ('1' or '0'), bound on fences, seconds that a fence lasts, holders.
-- Returns {'OK', holds, artifacts, bytes, whether there are more, locations of objects that are trash now…}.
local prefix, page = ARGV[1], tonumber(ARGV[2])
if ARGV[3] == '1' then
  local now = tonumber(time()[1]) * 1000000 + tonumber(time()[2])
  for h = 6, #ARGV do
    redis.call('ZADD', FENCES, 'NX', string.format('%d', now), ARGV[h])
  end
  redis.call('ZREMRANGEBYSCORE', FENCES, '-inf', '(' .. string.format('%d', now - tonumber(ARGV[5]) * 1000000))
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
local holds, artifacts, bytes, inline, locations = 0, 0, 0, 0, {}
for _, member in ipairs(held) do
  -- Not twice, where one holder is below another.
  if redis.call('ZREM', HOLDS, member) == 1 then
    holds = holds + 1
    local key = prefix .. string.match(member, ' (%x+)$')
    local known = redis.call('HMGET', key, 'n', 'r', 'l')
    if known[1] and tonumber(known[2]) > 1 then
      redis.call('HINCRBY', key, 'r', -1)
    elseif known[1] then
      local n = tonumber(known[1])
      artifacts, bytes = artifacts + 1, bytes + n
      if known[3] then
        redis.call('ZADD', TRASH, time()[1], known[3])
        locations[#locations + 1] = known[3]
      else
        inline = inline + n
      end
      redis.call('UNLINK', key)
    end
  end
end
if artifacts > 0 then
  add('bytes', -bytes)
  add('inline', -inline)
  add('artifacts', -artifacts)
end
local answer = {'OK', holds, artifacts, bytes, #held == page and 1 or 0}
for _, location in ipairs(locations) do
  answer[#answer + 1] = location
end
return answer

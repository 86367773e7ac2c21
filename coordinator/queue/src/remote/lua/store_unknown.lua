-- Which of these objects nobody knows of. ARGV: what artifacts' keys begin with, locations.
local unknown = {}
for i = 2, #ARGV do
  local location = ARGV[i]
  local hash = string.match(location, '(%x+)%.%x+%.%d+$') or ''
  local is_known = redis.call('HGET', ARGV[1] .. hash, 'l') == location
    or redis.call('ZSCORE', INTENTS, location) or redis.call('ZSCORE', TRASH, location)
  if not is_known then
    unknown[#unknown + 1] = location
  end
end
return unknown

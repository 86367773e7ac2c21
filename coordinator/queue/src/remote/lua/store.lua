-- Before every script of the store. KEYS: head, holds, fences, intents, trash, and an artifact's where it is about one.
--   head     bytes, reserved, inline, artifacts
--   holds    members "<holder> <hash>", all with score 0: ordered by holder
--   fences   revoked holders by time (us); intents and trash: locations of objects by time (s)
--   artifact n size, r holders, d the bytes or l the location of its object, x if found damaged
-- A location ends in ".<size>".
local HEAD, HOLDS, FENCES, INTENTS, TRASH, ARTIFACT = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

-- Seconds and microseconds, as texts; asked for only by who needs them.
local clock
local function time()
  clock = clock or redis.call('TIME')
  return clock
end

local function add(field, n)
  -- Adding 0 makes 0 of -0.
  redis.call('HINCRBY', HEAD, field, string.format('%d', n + 0))
end

local function num(field)
  return tonumber(redis.call('HGET', HEAD, field) or 0)
end

local function size_of(location)
  return tonumber(string.match(location, '%.(%d+)$'))
end

-- Whether the holder or one above it is revoked; its lineage is the end of ARGV.
local function is_fenced(first)
  for _, score in ipairs(redis.call('ZMSCORE', FENCES, unpack(ARGV, first))) do
    if score then
      return true
    end
  end
  return false
end

local function hold(holder, hash)
  if redis.call('ZADD', HOLDS, 'NX', 0, holder .. ' ' .. hash) == 1 then
    redis.call('HINCRBY', ARTIFACT, 'r', 1)
  end
end

-- Takes the bytes of an artifact away; an object becomes trash.
local function discard(artifact)
  local old = redis.call('HMGET', artifact, 'n', 'l')
  if old[2] then
    redis.call('ZADD', TRASH, time()[1], old[2])
  else
    add('inline', -tonumber(old[1]))
  end
  redis.call('HDEL', artifact, 'd', 'l', 'x')
  return old[2]
end

-- Makes room in the counters for a new artifact, or for the new bytes of a damaged one.
local function create(n)
  if redis.call('EXISTS', ARTIFACT) == 1 then
    discard(ARTIFACT)
  else
    redis.call('HSET', ARTIFACT, 'n', n, 'r', 0)
    add('bytes', tonumber(n))
    add('artifacts', 1)
  end
end

-- Size of the artifact if it is there and sound.
local function sound()
  local known = redis.call('HMGET', ARTIFACT, 'n', 'x')
  return known[1] and not known[2] and tonumber(known[1])
end

local function is_full(n, max)
  local new = redis.call('EXISTS', ARTIFACT) == 1 and 0 or tonumber(n)
  return num('bytes') + num('reserved') + new > tonumber(max)
end

#!lua
-- Appends events to the inbox, all or none. KEYS: head, inbox. ARGV: bounds on number and bytes, a random name of the post,
-- events.
-- Each entry carries the bytes of all events up to it, so that a trim costs one look-up, and a hash over the names of all
-- posts up to it: after a return to an older state the same place has another one. Returns the last one's place.
local head = redis.call('HMGET', KEYS[1], 'event', 'event_bytes', 'event_bytes_done', 'event_chain', 'cursor')
local place, bytes = tonumber(head[1] or 0), tonumber(head[2] or 0)
local waiting, size = place - tonumber(head[5] or 0) + #ARGV - 3, bytes - tonumber(head[3] or 0)
local chain = string.sub(redis.sha1hex((head[4] or '') .. ARGV[3]), 1, 16)
for i = 4, #ARGV do
  size = size + #ARGV[i]
end
if waiting > tonumber(ARGV[1]) then
  return {'FULL', 'events', ARGV[1]}
end
if size > tonumber(ARGV[2]) then
  return {'FULL', 'event_bytes', ARGV[2]}
end
for i = 4, #ARGV do
  place, bytes = place + 1, bytes + #ARGV[i]
  redis.call('XADD', KEYS[2], string.format('0-%d', place), 'd', ARGV[i], 't', string.format('%d', bytes),
    'c', chain)
end
redis.call('HSET', KEYS[1], 'event', string.format('%d', place), 'event_bytes', string.format('%d', bytes),
  'event_chain', chain)
redis.call('PUBLISH', KEYS[2], '')
return {'OK', place}

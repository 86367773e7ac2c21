#!lua flags=no-writes
-- The checkpoint and where the log stands, as of one moment. KEYS: head, checkpoint.
-- Returns {position of the checkpoint, its BLAKE3, end of the log, cursor, checkpoint}.
local head = redis.call('HMGET', KEYS[1], 'checkpoint', 'checkpoint_hash', 'record', 'cursor')
return {tonumber(head[1] or 0), head[2], tonumber(head[3] or 0), tonumber(head[4] or 0), redis.call('GET', KEYS[2])}

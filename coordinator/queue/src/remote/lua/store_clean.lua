-- Forgets trash whose objects are deleted. ARGV: locations.
return redis.call('ZREM', TRASH, unpack(ARGV))

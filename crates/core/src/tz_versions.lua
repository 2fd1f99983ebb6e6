-- Publishes the version of the time zone database that a process uses, and returns all unexpired ones, by the
-- server's clock. KEYS: the versions, by the time of their last publication. ARGV: the version, and the
-- seconds until it expires.
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('ZRANGE', KEYS[1], 0, -1)

-- Publishes that a process runs, and returns all that do, by the server's clock. KEYS: the processes, by the
-- time of their last publication. ARGV: the process, and the seconds until it counts as ended.
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('ZRANGE', KEYS[1], 0, -1)

-- Records that an attempt failed, and why.
--
-- KEYS[1]  the attempts
-- KEYS[2]  the library's record of the task
-- ARGV[1]  the task
-- ARGV[2]  the reason
--
-- Returns how many attempts have failed.
redis.call('HSET', KEYS[2], 'reason', ARGV[2])
return redis.call('HINCRBY', KEYS[1], ARGV[1] .. ':failed', 1)

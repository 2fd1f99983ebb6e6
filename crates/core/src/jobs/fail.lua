-- Records that a try failed, and why.
--
-- KEYS[1]  the tries
-- KEYS[2]  what is known about the task
-- ARGV[1]  the task
-- ARGV[2]  the reason
--
-- Returns how many tries have failed.
redis.call('HSET', KEYS[2], 'reason', ARGV[2])
return redis.call('HINCRBY', KEYS[1], ARGV[1] .. ':failed', 1)

-- A job is given up: it is kept with its reason, and its place in the window is free.
--
-- KEYS[1]  the outstanding tasks of the lane
-- KEYS[2]  the tries
-- KEYS[3]  what is known about the task
-- KEYS[4]  the dead tasks, by time
-- ARGV[1]  the task
-- ARGV[2]  the reason
-- ARGV[3]  now, in milliseconds
-- ARGV[4]  how often it was begun
redis.call('SREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1] .. ':begun', ARGV[1] .. ':failed')
redis.call('HSET', KEYS[3], 'reason', ARGV[2], 'tries', ARGV[4])
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
return 1

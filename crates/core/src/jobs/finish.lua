-- A job is done: its place in the window is free.
--
-- KEYS[1]  the outstanding tasks of the lane
-- KEYS[2]  the tries
-- ARGV[1]  the task
redis.call('SREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1] .. ':begun', ARGV[1] .. ':failed')
return 1

-- Records that a job is done and removes it from its window.
--
-- KEYS[1]  the outstanding tasks of the window
-- KEYS[2]  the attempts
-- ARGV[1]  the task
redis.call('SREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1] .. ':begun', ARGV[1] .. ':failed')
return 1

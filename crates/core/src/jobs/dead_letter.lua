-- Dead-letters a job: keeps it with its reason and removes it from its window.
--
-- KEYS[1]  the attempts
-- KEYS[2]  the library's record of the task
-- KEYS[3]  the dead letters, by time
-- KEYS[4]  the outstanding tasks of its window, or of the first window if its own is unknown
-- KEYS[5]  those of the second window, and so on
-- ARGV[1]  the task
-- ARGV[2]  the reason
-- ARGV[3]  now, in milliseconds
-- ARGV[4]  how many attempts there were
for window = 4, #KEYS do
  redis.call('SREM', KEYS[window], ARGV[1])
end
redis.call('HDEL', KEYS[1], ARGV[1] .. ':begun', ARGV[1] .. ':failed')
redis.call('HSET', KEYS[2], 'reason', ARGV[2], 'tries', ARGV[4])
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
return 1

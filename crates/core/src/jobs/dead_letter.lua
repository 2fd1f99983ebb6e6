-- A job is given up: it is kept with its reason, and its place in the window is free.
--
-- KEYS[1]  the tries
-- KEYS[2]  what is known about the task
-- KEYS[3]  the dead tasks, by time
-- KEYS[4]  the outstanding tasks of its lane, or of the first one if it is not known which is its lane
-- KEYS[5]  those of the second one, and so on
-- ARGV[1]  the task
-- ARGV[2]  the reason
-- ARGV[3]  now, in milliseconds
-- ARGV[4]  how often it was begun
for lane = 4, #KEYS do
  redis.call('SREM', KEYS[lane], ARGV[1])
end
redis.call('HDEL', KEYS[1], ARGV[1] .. ':begun', ARGV[1] .. ':failed')
redis.call('HSET', KEYS[2], 'reason', ARGV[2], 'tries', ARGV[4])
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
return 1

-- Requeues a dead letter, with a full set of attempts.
--
-- KEYS[1]  the library's set of dead tasks
-- KEYS[2]  the dead letters, by time
-- KEYS[3]  the payloads, by task
-- KEYS[4]  the library's record of the task
-- KEYS[5]  the outstanding tasks of its window
-- KEYS[6]  the list that workers fetch from
-- ARGV[1]  the task
-- ARGV[2]  the channel that wakes workers
--
-- Returns 1 if the job was requeued, 0 if it is not dead.
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 or redis.call('SREM', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[4], 'attempts', 0, 'status', 'Pending')
redis.call('HDEL', KEYS[4], 'reason', 'tries', 'result', 'done_at')
redis.call('SADD', KEYS[5], ARGV[1])
redis.call('RPUSH', KEYS[6], ARGV[1])
redis.call('PUBLISH', ARGV[2], '')
return 1

-- Requeues outstanding jobs that the queue library has dropped.
--
-- The library adds a task to its dead set after 25 deliveries, for any reason. Such a job is not one of our
-- dead letters and would occupy the window forever.
--
-- KEYS[1]  the outstanding tasks of a window
-- KEYS[2]  the library's set of dead tasks
-- KEYS[3]  the dead letters, by time
-- KEYS[4]  the payloads, by task
-- KEYS[5]  the list that workers fetch from
-- ARGV[1]  the prefix of the tasks' own keys, which are in the same slot
-- ARGV[2]  the channel that wakes workers
--
-- Returns how many were requeued.
local recovered = 0
for _, task in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if redis.call('HEXISTS', KEYS[4], task) == 0 then
    redis.call('SREM', KEYS[1], task)
  elseif redis.call('SISMEMBER', KEYS[2], task) == 1 and not redis.call('ZSCORE', KEYS[3], task) then
    redis.call('SREM', KEYS[2], task)
    redis.call('HSET', ARGV[1] .. task, 'attempts', 0, 'status', 'Pending')
    redis.call('RPUSH', KEYS[5], task)
    redis.call('PUBLISH', ARGV[2], '')
    recovered = recovered + 1
  end
end
return recovered

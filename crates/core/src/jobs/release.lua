-- Releases the unacknowledged jobs of a worker that has ended while its process lives on. Without this, other
-- workers would wait until its heartbeat is overdue. A started attempt without a recorded end is uncounted:
-- the job is not at fault. (A job that was fetched but not started, and whose earlier attempt crashed its
-- process, looks the same; it gets one more attempt.)
--
-- KEYS[1]  the tasks that the worker has fetched
-- KEYS[2]  the list that workers fetch from
-- KEYS[3]  the workers, by their last heartbeat
-- KEYS[4]  the attempts
-- KEYS[5]  the library's record of the worker, which it never deletes
-- ARGV[1]  the worker
-- ARGV[2]  the channel that wakes workers
--
-- Returns how many tasks were released.
local tasks = redis.call('SMEMBERS', KEYS[1])
for _, task in ipairs(tasks) do
  redis.call('RPUSH', KEYS[2], task)
  local tries = redis.call('HMGET', KEYS[4], task .. ':begun', task .. ':failed')
  if tonumber(tries[1] or '0') > tonumber(tries[2] or '0') then
    redis.call('HINCRBY', KEYS[4], task .. ':begun', -1)
  end
end
redis.call('DEL', KEYS[1], KEYS[5])
redis.call('ZREM', KEYS[3], ARGV[1])
if #tasks > 0 then
  redis.call('PUBLISH', ARGV[2], '')
end
return #tasks

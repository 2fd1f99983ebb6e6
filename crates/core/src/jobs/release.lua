-- Gives back what a worker has fetched and not acknowledged, when that worker has ended and its process lives
-- on. Without this, others would wait until it is taken for dead. A try that was begun and did not say how it
-- ended does not count: nothing went wrong with it. (Of what was fetched and not begun again, one that ended
-- its process may be taken for it; such a job is then tried once more.)
--
-- KEYS[1]  what the worker has fetched
-- KEYS[2]  the list that workers fetch from
-- KEYS[3]  the workers, by their last sign of life
-- KEYS[4]  the tries
-- KEYS[5]  what the library knows about the worker, which it would keep for ever
-- ARGV[1]  the worker
-- ARGV[2]  the channel that wakes workers
--
-- Returns how many tasks were given back.
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

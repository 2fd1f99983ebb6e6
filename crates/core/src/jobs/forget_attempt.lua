-- Uncounts an attempt that ended because its process is stopping, or because a dependency is unavailable:
-- neither is the job's fault.
--
-- KEYS[1]  the attempts
-- ARGV[1]  the task
local tries = redis.call('HMGET', KEYS[1], ARGV[1] .. ':begun', ARGV[1] .. ':failed')
if tonumber(tries[1] or '0') > tonumber(tries[2] or '0') then
  redis.call('HINCRBY', KEYS[1], ARGV[1] .. ':begun', -1)
end
return 1

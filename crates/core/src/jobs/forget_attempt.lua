-- A try has ended because its process is to stop, or what it needs is away, which is no fault of the job: it
-- does not count.
--
-- KEYS[1]  the tries
-- ARGV[1]  the task
local tries = redis.call('HMGET', KEYS[1], ARGV[1] .. ':begun', ARGV[1] .. ':failed')
if tonumber(tries[1] or '0') > tonumber(tries[2] or '0') then
  redis.call('HINCRBY', KEYS[1], ARGV[1] .. ':begun', -1)
end
return 1

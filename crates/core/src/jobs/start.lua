-- Counts a try. A job that ends its process never says how it ended, so the count is made before it is begun.
--
-- KEYS[1]  the tries
-- KEYS[2]  the dead tasks, by time
-- KEYS[3]  what is known about the task
-- ARGV[1]  the task
--
-- Returns how often the task was begun, this time included, and how many of those tries said that they failed;
-- its trace, and when it was enqueued; or nothing if the task is dead, and was delivered once more because its worker
-- died before it could say so.
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  return false
end
local begun = redis.call('HINCRBY', KEYS[1], ARGV[1] .. ':begun', 1)
local failed = tonumber(redis.call('HGET', KEYS[1], ARGV[1] .. ':failed') or '0')
local about = redis.call('HMGET', KEYS[3], 'traceparent', 'enqueued_at')
return {begun, failed, about[1] or '', about[2] or ''}

-- Counts an attempt. A job that crashes its process never records the end of its attempt, so attempts are
-- counted when they start; the task's record then shows that it was started before.
--
-- KEYS[1]  the attempts
-- KEYS[2]  the dead letters, by time
-- KEYS[3]  the library's record of the task
-- ARGV[1]  the task
--
-- Returns how often the task was started, this time included, and how many of those attempts failed; or
-- nothing if the task is a dead letter, redelivered because its worker died before acknowledging it.
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  return false
end
local begun = redis.call('HINCRBY', KEYS[1], ARGV[1] .. ':begun', 1)
local failed = tonumber(redis.call('HGET', KEYS[1], ARGV[1] .. ':failed') or '0')
if redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('HSET', KEYS[3], 'begun', begun)
end
return {begun, failed}

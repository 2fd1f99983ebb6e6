-- Counts a try. A job that ends its process never says how it ended, so the count is made when it is begun;
-- from then on whoever fetches it is told that this was not its first try.
--
-- KEYS[1]  the tries
-- KEYS[2]  the dead tasks, by time
-- KEYS[3]  what is known about the task
-- ARGV[1]  the task
--
-- Returns how often the task was begun, this time included, and how many of those tries said that they
-- failed; or nothing if the task is dead, and was delivered once more because its worker died before it could
-- say so.
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  return false
end
local begun = redis.call('HINCRBY', KEYS[1], ARGV[1] .. ':begun', 1)
local failed = tonumber(redis.call('HGET', KEYS[1], ARGV[1] .. ':failed') or '0')
if redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('HSET', KEYS[3], 'begun', begun)
end
return {begun, failed}

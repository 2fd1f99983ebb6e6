-- Deletes the records of jobs some time after they were done, and the oldest dead letters beyond a bound; the
-- library never deletes them. Done jobs move to a second set, which is deleted a period later, a bounded
-- number at a time.
--
-- KEYS[1]  the library's set of done tasks
-- KEYS[2]  those that were done before the current period
-- KEYS[3]  the payloads, by task
-- KEYS[4]  exists during a period
-- KEYS[5]  the library's set of dead tasks
-- KEYS[6]  the dead tasks, by time
-- ARGV[1]  the prefix of the tasks' own keys, which are in the same slot
-- ARGV[2]  the most tasks to delete in this call
-- ARGV[3]  a period, in milliseconds
-- ARGV[4]  the number of dead tasks to keep
--
-- Returns how many done tasks were deleted.
local forgotten = redis.call('SPOP', KEYS[2], ARGV[2])
for _, task in ipairs(forgotten) do
  redis.call('HDEL', KEYS[3], task)
  redis.call('DEL', ARGV[1] .. task)
end
if #forgotten == 0 and redis.call('EXISTS', KEYS[1]) == 1
    and redis.call('SET', KEYS[4], '', 'NX', 'PX', ARGV[3]) then
  redis.call('RENAME', KEYS[1], KEYS[2])
end
local beyond = redis.call('ZCARD', KEYS[6]) - tonumber(ARGV[4])
if beyond > 0 then
  for _, task in ipairs(redis.call('ZRANGE', KEYS[6], 0, math.min(beyond, tonumber(ARGV[2])) - 1)) do
    redis.call('ZREM', KEYS[6], task)
    redis.call('SREM', KEYS[5], task)
    redis.call('HDEL', KEYS[3], task)
    redis.call('DEL', ARGV[1] .. task)
  end
end
return #forgotten

-- Adds a job unless it is known or the window of its kind is full.
--
-- The library's own way of enqueueing goes through its set of scheduled tasks, which it empties in one call:
-- beyond 7,999 of them no worker could fetch again. This script appends to the list that workers fetch from.
--
-- KEYS[1]  the payloads, by task
-- KEYS[2]  the list that workers fetch from
-- KEYS[3]  the library's record of the task
-- KEYS[4]  the outstanding tasks of the window
-- ARGV[1]  the task
-- ARGV[2]  its payload
-- ARGV[3]  how many tasks of the window may be outstanding
-- ARGV[4]  the channel that wakes workers
-- ARGV[5]  the trace that it is part of, or nothing
-- ARGV[6]  now, in milliseconds
-- ARGV[7]  0 if its first attempt may start before it is counted, or nothing
--
-- Returns how many tasks of the window are then outstanding; -1 if the task is known, -2 if the window is
-- full.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  return -1
end
if redis.call('SCARD', KEYS[4]) >= tonumber(ARGV[3]) then
  return -2
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[3], 'attempts', 0, 'max_attempts', 25, 'status', 'Pending', 'traceparent', ARGV[5], 'enqueued_at', ARGV[6], 'begun', ARGV[7])
redis.call('SADD', KEYS[4], ARGV[1])
redis.call('RPUSH', KEYS[2], ARGV[1])
redis.call('PUBLISH', ARGV[4], '')
return redis.call('SCARD', KEYS[4])

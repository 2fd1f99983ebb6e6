-- Acquires a lease unless it is held.
--
-- KEYS[1]  the lease
-- KEYS[2]  its last token
-- ARGV[1]  the owner
-- ARGV[2]  milliseconds until it expires
-- ARGV[3]  the token must be larger than this
--
-- Returns the token, or 0 if the lease is held.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
local token = redis.call('INCR', KEYS[2])
if token <= tonumber(ARGV[3]) then
  token = tonumber(ARGV[3]) + 1
  redis.call('SET', KEYS[2], token)
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. token, 'PX', ARGV[2])
return token

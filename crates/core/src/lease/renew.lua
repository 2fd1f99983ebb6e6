-- Extends a lease, if this owner still holds it.
--
-- KEYS[1]  the lease
-- ARGV[1]  the owner and the token
-- ARGV[2]  milliseconds until it expires
--
-- Returns 1, or 0 if this owner does not hold it.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1

-- Raises the mark of how far a catalogue has come; it is never lowered.
--
-- KEYS[1]  the mark
-- ARGV[1]  the newest revision that is known, 20 digits with leading zeros, or nothing
-- ARGV[2]  its product
-- ARGV[3]  the newest policy version that is known, in the same form, or nothing
-- ARGV[4]  the digest of its text
--
-- Returns the mark: a revision and its product, a policy version and its digest, each of them text or nil.
local held = redis.call('HMGET', KEYS[1], 'revision', 'policy_version')
if (held[1] or '') < ARGV[1] then
  redis.call('HSET', KEYS[1], 'revision', ARGV[1], 'product_id', ARGV[2])
end
if (held[2] or '') < ARGV[3] then
  redis.call('HSET', KEYS[1], 'policy_version', ARGV[3], 'policy_digest', ARGV[4])
end
return redis.call('HMGET', KEYS[1], 'revision', 'product_id', 'policy_version', 'policy_digest')

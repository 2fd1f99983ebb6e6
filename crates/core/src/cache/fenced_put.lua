-- Puts a price entry unless the key holds the same or a newer revision.
--
-- KEYS[1]  the price key
-- ARGV[1]  the entry's revision, 20 digits with leading zeros, so that text order is number order
-- ARGV[2]  the entry as JSON, or '' for a product that is gone
-- ARGV[3]  milliseconds until the entry expires
-- ARGV[4]  'insert' to put it in any case, 'replace' to put it only where something older is
--
-- Returns 1 if the entry was put, 0 if not.
local current = redis.pcall('GETRANGE', KEYS[1], 0, 19)
if type(current) == 'table' or not string.match(current, '^%d*$') then
  -- Somebody else's value: it is in the way, and no price.
  redis.call('DEL', KEYS[1])
  current = ''
end
if current >= ARGV[1] or (current == '' and ARGV[4] == 'replace') then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
return 1

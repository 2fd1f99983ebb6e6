-- Appends events to the stream and says so on the channel; all of them or none.
--
-- KEYS[1]  the stream
-- ARGV[1]  the channel
-- ARGV[2]  how many entries the stream may hold
-- ARGV[3]  the name of the entries' field
-- ARGV[4]  the name of the attribute that tells the entry
-- ARGV[5…] the events, as JSON objects
--
-- Returns the entries' identifiers, or nothing if the stream is full.
if redis.call('XLEN', KEYS[1]) + #ARGV - 4 > tonumber(ARGV[2]) then
  return {}
end
local ids = {}
for place = 5, #ARGV do
  local event = ARGV[place]
  local id = redis.call('XADD', KEYS[1], '*', ARGV[3], event)
  redis.call('PUBLISH', ARGV[1], string.sub(event, 1, -2) .. ',"' .. ARGV[4] .. '":"' .. id .. '"}')
  ids[#ids + 1] = id
end
return ids

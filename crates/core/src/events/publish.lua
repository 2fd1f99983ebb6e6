-- Appends events to the stream and publishes them on the channel; all of them or none.
--
-- KEYS[1]  the stream
-- ARGV[1]  the channel
-- ARGV[2]  how many entries the stream may hold
-- ARGV[3]  the name of the entries' field
-- ARGV[4]  the name of the attribute with the entry's identifier
-- ARGV[5]  the name of the field that holds the trace
-- ARGV[6]  the trace that they are part of, or nothing
-- ARGV[7…] the events, as JSON objects
--
-- Returns the entries' identifiers, or nothing if the stream is full. A server that evicts keys without an
-- expiry would delete the stream as a whole: it is refused, with an error EVICTS that names the policy. The
-- server that has the stream is asked each time: it may be another one than before, or have other settings.
local memory = redis.pcall('INFO', 'memory')
local policy = type(memory) == 'string' and string.match(memory, 'maxmemory_policy:(allkeys[%w-]*)')
if policy then
  return redis.error_reply('EVICTS ' .. policy)
end
if redis.call('XLEN', KEYS[1]) + #ARGV - 6 > tonumber(ARGV[2]) then
  return {}
end
local ids = {}
for place = 7, #ARGV do
  local event = ARGV[place]
  local id
  if ARGV[6] == '' then
    id = redis.call('XADD', KEYS[1], '*', ARGV[3], event)
  else
    id = redis.call('XADD', KEYS[1], '*', ARGV[3], event, ARGV[5], ARGV[6])
  end
  redis.call('PUBLISH', ARGV[1], string.sub(event, 1, -2) .. ',"' .. ARGV[4] .. '":"' .. id .. '"}')
  ids[#ids + 1] = id
end
return ids

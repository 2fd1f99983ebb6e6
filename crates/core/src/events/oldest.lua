-- Returns for how many milliseconds the oldest event that is not acknowledged has been in the stream, by the
-- server's clock, or -1 if none waits. KEYS: the stream. ARGV: the consumer group.
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err then
  return -1
end
local oldest, after = nil, '-'
for _, group in ipairs(groups) do
  local fields = {}
  for place = 1, #group, 2 do
    fields[group[place]] = group[place + 1]
  end
  if fields.name == ARGV[1] then
    after = '(' .. fields['last-delivered-id']
    if fields.pending > 0 then
      oldest = redis.call('XPENDING', KEYS[1], ARGV[1])[2]
    end
  end
end
if not oldest then
  local next = redis.call('XRANGE', KEYS[1], after, '+', 'COUNT', 1)
  oldest = next[1] and next[1][1]
end
if not oldest then
  return -1
end
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
return math.max(0, now_ms - tonumber(oldest:match('^(%d+)')))

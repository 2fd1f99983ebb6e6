-- Stores price entries, each unless its key holds the same or a newer revision, and publishes the changes:
-- appends them to the stream of the latest changes, and sends them on the channel with the new entries.
--
-- KEYS     the price keys and, if processes are notified, the stream and the count of its bytes
-- ARGV[1]  'insert' to store an entry unless a newer one is there, 'replace' to only replace an older one
-- ARGV[2]  the number of entries, which is that of price keys
-- ARGV[3]  the largest revision that can be one of the catalogue's, 20 digits: an entry with a larger one is
--          foreign and does not count
-- ARGV[4]  the first key's entry: its revision, 20 digits with leading zeros, so that text order is number
--          order, and
--          the entry as JSON, or nothing for a removed product
-- ARGV[5]  milliseconds until it expires
-- ARGV[6]  the second key's entry, and so on
-- after them, if the changes are published:
--          the channel
--          the approximate number of entries that the stream keeps
--          half of the bytes that it keeps
--          the name of their field
--          the changes of the first new one, a JSON object
--          a JSON list of the new entries or null, in the same order, or an empty one
--          the changes of the second, and so on
--
-- Returns how many entries were stored. (Numbers are kept as text: Lua's are binary floating point, and
-- formatting one is slow.)

-- Whether a text begins with a revision: it is long enough, its first digit is the zero that every revision
-- has (the largest has nineteen digits), and the twentieth is a digit. A pattern would cost as much as the
-- rest of the script.
local function is_revision(text)
  if type(text) ~= 'string' then return false end
  local first, last = string.byte(text, 1), string.byte(text, 20)
  return first == 48 and last ~= nil and last >= 48 and last <= 57
end

local only_over_older = ARGV[1] == 'replace'
local entries, largest = tonumber(ARGV[2]), ARGV[3]
local put = 0
for number = 1, entries do
  local key, entry = KEYS[number], ARGV[2 * number + 2]
  local current = redis.pcall('GETRANGE', key, '0', '19')
  if current ~= '' and (not is_revision(current) or current > largest) then
    -- A foreign value, which is not a price entry, would block the key.
    redis.call('DEL', key)
    current = ''
  end
  if current < string.sub(entry, 1, 20) and not (current == '' and only_over_older) then
    redis.call('SET', key, entry, 'PX', ARGV[2 * number + 3])
    put = put + 1
  end
end

-- The stream is trimmed by bytes in halves: when as many as half of the bound were added since the last mark,
-- the entries before that mark are deleted, and the newest entry is the next mark. So it costs no search.
local stream, bytes, first = KEYS[entries + 1], KEYS[entries + 2], 2 * entries + 4
if stream then
  local half = tonumber(ARGV[first + 2])
  for number = first + 4, #ARGV, 2 do
    local id = redis.call('XADD', stream, 'MAXLEN', '~', ARGV[first + 1], '*', ARGV[first + 3], ARGV[number])
    if redis.call('HINCRBY', bytes, 'since_mark', #ARGV[number]) >= half then
      local mark = redis.call('HGET', bytes, 'mark')
      if mark then redis.call('XTRIM', stream, 'MINID', '~', mark) end
      redis.call('HSET', bytes, 'since_mark', '0', 'mark', id)
    end
    redis.call('PUBLISH', ARGV[first], ARGV[number]:sub(1, -2) .. ',"entries":' .. ARGV[number + 1] .. '}')
  end
end
return put

-- Puts price entries, each unless its key holds the same or a newer revision, and tells of them: keeps the
-- changes in the stream of the latest ones, and says so on the channel, with the new prices.
--
-- KEYS     the price keys, and the stream if processes are notified
-- ARGV[1]  'insert' to put an entry in any case, 'replace' to put it only where something older is
-- ARGV[2]  how many entries there are: as many as price keys
-- ARGV[3]  the first key's entry: its revision, 20 digits with leading zeros, so that text order is number
--          order, and
--          the entry as JSON, or nothing for a product that is gone
-- ARGV[4]  milliseconds until it expires
-- ARGV[5]  the second key's entry, and so on
-- after them, if anybody is told:
--          the channel
--          about how many entries of the stream are kept
--          the name of their field
--          the changes of the first new one, a JSON object
--          the prices that are in effect now, or null, in the same order, or none at all: a JSON list
--          the changes of the second, and so on
--
-- Returns how many entries were put.
-- (Numbers as text: the script's own numbers are binary floating point, and writing one down takes a while.)

-- Whether a text is as long as a revision, begins with the zero with which each does, as the largest has
-- nineteen digits, and ends with a digit: a pattern would cost as much as the rest of the script.
local function is_revision(text)
  if type(text) ~= 'string' then return false end
  local first, last = string.byte(text, 1), string.byte(text, 20)
  return first == 48 and last ~= nil and last >= 48 and last <= 57
end

local only_over_older = ARGV[1] == 'replace'
local entries = tonumber(ARGV[2])
local put = 0
for number = 1, entries do
  local key, entry = KEYS[number], ARGV[2 * number + 1]
  local current = redis.pcall('GETRANGE', key, '0', '19')
  if current ~= '' and not is_revision(current) then
    -- Somebody else's value: it is in the way, and no price.
    redis.call('DEL', key)
    current = ''
  end
  if current < string.sub(entry, 1, 20) and not (current == '' and only_over_older) then
    redis.call('SET', key, entry, 'PX', ARGV[2 * number + 2])
    put = put + 1
  end
end

local stream, told = KEYS[entries + 1], 2 * entries + 3
if stream then
  for number = told + 3, #ARGV, 2 do
    redis.call('XADD', stream, 'MAXLEN', '~', ARGV[told + 1], '*', ARGV[told + 2], ARGV[number])
    redis.call('PUBLISH', ARGV[told], ARGV[number]:sub(1, -2) .. ',"entries":' .. ARGV[number + 1] .. '}')
  end
end
return put

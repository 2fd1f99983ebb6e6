-- Keeps price changes in the stream of the latest ones, and says so on the channel, with the new prices.
--
-- KEYS[1]  the stream
-- ARGV[1]  the channel
-- ARGV[2]  about how many entries of the stream are kept
-- ARGV[3]  the name of their field
-- ARGV[4]  the changes of the first of them, a JSON object
-- ARGV[5]  the prices that are in effect now, or null, in the same order, or none at all: a JSON list
-- ARGV[6]  the changes of the second, and so on
for number = 4, #ARGV, 2 do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', ARGV[3], ARGV[number])
  redis.call('PUBLISH', ARGV[1], ARGV[number]:sub(1, -2) .. ',"entries":' .. ARGV[number + 1] .. '}')
end
return (#ARGV - 3) / 2

-- Keeps price changes in the stream of the latest ones, and says so on the channel.
--
-- KEYS[1]  the stream
-- ARGV[1]  the channel
-- ARGV[2]  about how many entries are kept
-- ARGV[3]  the name of the entries' field
-- ARGV[4]  the changes of the first entry, as JSON
-- ARGV[5]  those of the second, and so on
for number = 4, #ARGV do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', ARGV[3], ARGV[number])
  redis.call('PUBLISH', ARGV[1], ARGV[number])
end
return #ARGV - 3

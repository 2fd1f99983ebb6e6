-- Keeps price changes in the stream of the latest ones, and says so on the channel.
--
-- KEYS[1]  the stream
-- ARGV[1]  the channel
-- ARGV[2]  about how many entries are kept
-- ARGV[3]  the name of the entry's field
-- ARGV[4]  the changes, as JSON
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', ARGV[3], ARGV[4])
redis.call('PUBLISH', ARGV[1], ARGV[4])
return 1

-- Deletes a value that is no entry of the catalogue, unless another one has taken its place meanwhile.
--
-- KEYS[1]  a price key
-- ARGV[1]  the first 20 bytes of the value that was read, or nothing if it was no string
local head = redis.pcall('GETRANGE', KEYS[1], '0', '19')
if type(head) ~= 'string' or head == ARGV[1] then
  redis.call('DEL', KEYS[1])
end

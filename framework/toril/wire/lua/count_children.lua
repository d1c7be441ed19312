#!lua flags=no-writes
--[[ count_children
How many children a job has of each kind, at one instant.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  job id
Returns  {processed, unprocessed, ignored, failed}
]]
local key = KEYS[1] .. ARGV[1]
return {
  redis.call("HLEN", key .. ":processed"),
  redis.call("SCARD", key .. ":dependencies"),
  redis.call("HLEN", key .. ":failed"),
  redis.call("ZCARD", key .. ":unsuccessful"),
}

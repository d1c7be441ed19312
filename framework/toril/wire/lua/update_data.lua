#!lua
--[[ update_data
Writes a job's data (wire 3.10).

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  job id
ARGV[2]  data, JSON
Returns  0, or -1 if there is no such job
]]
local key = KEYS[1] .. ARGV[1]
if redis.call("EXISTS", key) == 0 then return -1 end
redis.call("HSET", key, "data", ARGV[2])
return 0

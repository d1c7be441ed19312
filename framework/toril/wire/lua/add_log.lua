#!lua
--[[ add_log
Appends a row to a job's log and keeps the newest (wire 3.10).

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  job id
ARGV[2]  the row
ARGV[3]  how many rows to keep; 0 keeps all
Returns  how many rows there are, or -1 if there is no such job
]]
local key, keep = KEYS[1] .. ARGV[1], tonumber(ARGV[3])
if redis.call("EXISTS", key) == 0 then return -1 end
local count = redis.call("RPUSH", key .. ":logs", ARGV[2])
if keep == 0 then return count end
redis.call("LTRIM", key .. ":logs", -keep, -1)
return math.min(keep, count)

#!lua flags=allow-oom
--[[ drop_deduplication
Lets the next job of a deduplication id in, if it is this job that keeps the others out (wire 3.10, removeDeduplicationKey).

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  job id
ARGV[2]  deduplication id
Returns  1, 0 it isn't this job
]]
local key = KEYS[1] .. "de:" .. ARGV[2]
if redis.call("GET", key) ~= ARGV[1] then return 0 end
return redis.call("DEL", key)

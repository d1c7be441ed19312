#!lua flags=allow-oom
--[[ promote
Makes a delayed job wait now instead of at its time (wire 3.10).

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  job id
Returns  0, or -3 if it isn't delayed (also if there is no such job)
]]
-- include queue

local q, id = open_queue(KEYS[1]), ARGV[1]
local key = q.base .. id
if call("ZREM", q.delayed, id) == 0 then return -3 end
local priority = tonumber(field(key, "priority")) or 0
add_waiting(q, id, priority)
wake(q)
event(q, "waiting", "jobId", id, "prev", "delayed")
if call("TYPE", key).ok == "hash" then call("HSET", key, "delay", 0) end
return 0

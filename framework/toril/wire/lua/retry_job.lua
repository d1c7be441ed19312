#!lua
--[[ retry_job
Lets a finished job run again (wire 3.10, retry).

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  job id
ARGV[2]  where it is: completed or failed
ARGV[3]  1: before those that wait (a LIFO job), 0: behind them
ARGV[4]  1: forget how many attempts were made
ARGV[5]  1: forget how many were started
ARGV[6]  its options from now on, or ""
Returns  0, -1 if there is no such job, -3 if it isn't there
]]
-- include relink

local q, id, target = open_queue(KEYS[1]), ARGV[1], ARGV[2]
local key = q.base .. id
if call("EXISTS", key) == 0 then return -1 end
refuse(wrong_kind(key, "hash") or relink_obstacle(q, key))
if call("ZREM", q.base .. target, id) == 0 then return -3 end
call("HDEL", key, "finishedOn", "processedOn", target == "completed" and "returnvalue" or "failedReason")
if ARGV[4] == "1" then call("HDEL", key, "atm") end
if ARGV[5] == "1" then call("HDEL", key, "ats") end
if ARGV[6] ~= "" then call("HSET", key, "opts", ARGV[6]) end
forget(q, id)
local priority = tonumber(call("HGET", key, "priority")) or 0
add_waiting(q, id, priority, ARGV[3] == "1")
wake(q)
relink(key, target)
trimming_event(q, "waiting", "jobId", id, "prev", target)
return 0

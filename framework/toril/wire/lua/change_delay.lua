#!lua
--[[ change_delay
Gives a delayed job another time (wire 3.10).

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  job id
ARGV[2]  now, ms
ARGV[3]  delay from now on, ms
Returns  0, -1 if there is no such job, -3 if it isn't delayed
]]
-- include queue

local q, id, now, delay = open_queue(KEYS[1]), ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if call("EXISTS", q.base .. id) == 0 then return -1 end
if not call("ZSCORE", q.delayed, id) then return -3 end
call("HSET", q.base .. id, "delay", delay)
add_delayed(q, id, now + delay) -- behind all that are due then, its own old place included
trimming_event(q, "delayed", "jobId", id, "delay", now + delay)
wake_delayed(q)
return 0

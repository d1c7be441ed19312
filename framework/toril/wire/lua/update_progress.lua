#!lua
--[[ update_progress
Writes a job's progress (wire 3.10).

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  job id
ARGV[2]  progress, JSON
Returns  0, or -1 if there is no such job
]]
-- include queue

local q, id, progress = open_queue(KEYS[1]), ARGV[1], ARGV[2]
if call("EXISTS", q.base .. id) == 0 then return -1 end
call("HSET", q.base .. id, "progress", progress)
trimming_event(q, "progress", "jobId", id, "data", progress)
return 0

#!lua flags=allow-oom
--[[ remove_scheduler
Ends a job scheduler, and takes back its iteration if that is still delayed (wire 3.16.4).

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  scheduler's id
Returns  1 if there was one, else 0
]]
-- include queue

local q, scheduler = open_queue(KEYS[1]), ARGV[1]
local all = q.base .. "repeat"
local due = tonumber(call("ZSCORE", all, scheduler) or nil)
if not due then return 0 end
local id = "repeat:" .. scheduler .. ":" .. string.format("%.0f", due)
if call("ZREM", q.delayed, id) == 1 then
  drop_keys(q.base .. id)
  event(q, "removed", "jobId", id, "prev", "delayed")
end
call("ZREM", all, scheduler)
call("DEL", q.base .. "repeat:" .. scheduler)
return 1

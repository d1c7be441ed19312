#!lua flags=allow-oom
--[[ cancel
Fails a job that isn't running, for good; tells the worker of one that is (wire 11).

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  job id
ARGV[2]  now, ms
ARGV[3]  why
ARGV[4]  what is kept of failed jobs
Returns  the name of the collection that the job was in, or -1 no such job, -3 it has ended, -8 a scheduler's pending iteration
]]
-- include fail
-- include take_out

local q, id, now, reason = open_queue(KEYS[1]), ARGV[1], tonumber(ARGV[2]), ARGV[3]
if call("EXISTS", q.base .. id) == 0 then return -1 end
local parent = call("HMGET", q.base .. id, "parentKey", "parent")
if parent[1] then refuse(parent_obstacle(q, parent[1], parent[2])) end
if is_pending_iteration(q, id) then return -8 end -- also one that was claimed a moment ago, until the next one is there
if call("LPOS", q.active, id) then
  note(q, "cancel", id, reason, 3600000)
  redis.pcall("PUBLISH", q.own .. "control", "cancel " .. id) -- a user without the right hears of it with the next renewal
  return "active"
end
if call("ZSCORE", q.base .. "completed", id) or call("ZSCORE", q.base .. "failed", id) then return -3 end
local state = take_out(q, id)
if state == "unknown" then return -3 end
fail_unasked(q, now, id, (state == "wait" or state == "paused") and "waiting" or state, "cancelled: " .. reason, ARGV[4])
return state

#!lua flags=allow-oom
--[[ end_cancelled
Fails a cancelled job whose worker died before it could obey: it is active, and nobody holds its lock (wire 11).

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  job id
ARGV[2]  now, ms
ARGV[3]  what is kept of failed jobs
ARGV[4]  for how many minutes finished jobs are counted, or 0
Returns  why it was cancelled, or "" if it isn't like that (any more)
]]
-- include fail

local q, id, now = open_queue(KEYS[1]), ARGV[1], tonumber(ARGV[2])
q.metrics_points = tonumber(ARGV[4])
local key = q.base .. id
local reason = call("GET", q.own .. "cancel:" .. id)
if not reason or call("EXISTS", key .. ":lock") == 1 or call("EXISTS", key) == 0 then return "" end
local parent = call("HMGET", key, "parentKey", "parent")
if parent[1] then refuse(parent_obstacle(q, parent[1], parent[2])) end
if call("LREM", q.active, 1, id) == 0 then return "" end
call("SREM", q.stalled, id)
count_up(key, "stc")
fail_unasked(q, now, id, "active", "cancelled: " .. reason, ARGV[3])
return reason

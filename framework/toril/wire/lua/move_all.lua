#!lua
--[[ move_all
Moves up to `count` jobs that are failed, completed or delayed to wait, the oldest first (wire 3.12, retryJobs and promoteJobs).
Priorities don't count here.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  where they are: failed, completed or delayed
ARGV[2]  how many at most
ARGV[3]  only those with a score up to this; "+inf" for all
Returns  how many were moved; fewer than asked for means that none is left
]]
-- include relink

local q, target, count = open_queue(KEYS[1]), ARGV[1], tonumber(ARGV[2])
local ids = call("ZRANGEBYSCORE", q.base .. target, 0, ARGV[3], "LIMIT", 0, count)
if #ids == 0 then return 0 end
if target ~= "delayed" then
  for _, id in ipairs(ids) do
    refuse(relink_obstacle(q, q.base .. id))
  end
end
for _, id in ipairs(ids) do
  local key = q.base .. id
  if target ~= "delayed" and call("TYPE", key).ok == "hash" then
    call("HDEL", key, "finishedOn", "processedOn", target == "completed" and "returnvalue" or "failedReason")
    relink(key, target)
    forget(q, id)
  end
  trimming_event(q, "waiting", "jobId", id, "prev", target)
end
for first = 1, #ids, 1000 do
  local last = math.min(first + 999, #ids)
  call("ZREM", q.base .. target, unpack(ids, first, last))
  call("LPUSH", q.wait, unpack(ids, first, last))
end
wake(q)
return #ids

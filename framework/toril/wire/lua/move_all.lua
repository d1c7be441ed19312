#!lua
--[[ move_all
Moves up to `count` jobs that are failed, completed or delayed to wait, the oldest first (wire 3.12, retryJobs and promoteJobs), but not those
that something damaged refuses. Priorities don't count here.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  where they are: failed, completed or delayed
ARGV[2]  how many at most
ARGV[3]  only those with a score up to this; "+inf" for all
ARGV[4]  how many to pass by: the oldest ones, which earlier calls have left
Returns  {how many were moved, how many there are to pass by from now on, or -1 at its end, ids that are left since something is damaged,
         each followed by what}
]]
-- include relink
-- include leave

local q, target, count, passed = open_queue(KEYS[1]), ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[4])

local function let_run_again(id)
  local key = q.base .. id
  refuse(relink_obstacle(q, key))
  if call("TYPE", key).ok ~= "hash" then return end
  call("HDEL", key, "finishedOn", "processedOn", target == "completed" and "returnvalue" or "failedReason")
  relink(key, target)
  forget(q, id)
end

local ids, moved = call("ZRANGEBYSCORE", q.base .. target, 0, ARGV[3], "LIMIT", passed, count), {}
for _, id in ipairs(ids) do
  if target == "delayed" or done_or_left(id, let_run_again, id) then
    moved[#moved + 1] = id
    trimming_event(q, "waiting", "jobId", id, "prev", target)
  end
end
for first = 1, #moved, 1000 do
  local last = math.min(first + 999, #moved)
  call("ZREM", q.base .. target, unpack(moved, first, last))
  call("LPUSH", q.wait, unpack(moved, first, last))
end
if #moved > 0 then wake(q) end
return { #moved, #ids < count and -1 or passed + #ids - #moved, left }

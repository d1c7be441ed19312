#!lua flags=allow-oom
--[[ obliterate
Removes a paused queue with all that belongs to it, up to `count` jobs at a time (wire 3.12), but for those that something damaged refuses: the
queue stays then. No event tells of it.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  how many jobs at most
ARGV[2]  1: those that run, too
ARGV[3]  which of its collections comes first: earlier calls have been through the others
ARGV[4]  how many to pass by in that one, which earlier calls have left
ARGV[5]  1: earlier calls have left some
Returns  -1 it isn't paused, -2 jobs run; or {which collection comes next, or 0 at the end, how many to pass by in that one, how many were removed,
         ids that are left since something is damaged, each followed by what}
]]
-- include remove_hard
-- include leave

local q, count, first, passed = open_queue(KEYS[1]), tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])
-- A call whose reply was lost is repeated, and where it was the last one, what says that the queue is paused is gone with all else.
if call("EXISTS", q.meta, q.base .. "id", q.events) == 0 then return { 0, 0, 0, left } end
if not q.paused then return -1 end
if ARGV[2] ~= "1" and call("LLEN", q.active) > 0 then return -2 end
refuse(wrong_kind(q.base .. "repeat", "zset"))

local STATES = { "active", "delayed", "repeat", "completed", "wait", "paused", "prioritized", "failed", "waiting-children" }
local LISTS = { active = true, wait = true, paused = true }

local function remove_one(state, id)
  if state == "repeat" then return call("DEL", q.base .. "repeat:" .. id) end
  remove_hard(q, id)
  if state == "active" then call("DEL", q.base .. id .. ":lock") end
end

local removed, seen = 0, 0
for place = first, #STATES do
  local state = STATES[place]
  local key = q.base .. state
  local ids = call(LISTS[state] and "LRANGE" or "ZRANGE", key, passed, passed + count - seen - 1)
  for _, id in ipairs(ids) do
    if done_or_left(id, remove_one, state, id) then
      call(LISTS[state] and "LREM" or "ZREM", key, unpack(LISTS[state] and { 1, id } or { id }))
      removed = removed + 1
    else
      passed = passed + 1
    end
  end
  seen = seen + #ids
  if seen >= count then return { place, passed, removed, left } end
  passed = 0
end
if #left > 0 or ARGV[5] == "1" then return { 0, 0, removed, left } end

for _, suffix in ipairs({
  "events", "delay", "priority", "stalled-check", "stalled", "id", "pc", "marker", "meta", "limiter",
  "metrics:completed", "metrics:completed:data", "metrics:failed", "metrics:failed:data",
}) do
  call("DEL", q.base .. suffix)
end
return { 0, 0, removed, left }

#!lua flags=allow-oom
--[[ obliterate
Removes a paused queue with all that belongs to it, up to `count` jobs at a time (wire 3.12). No event tells of it.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  how many jobs at most
ARGV[2]  1: those that run, too
Returns  0 all is gone, 1 there is more, -1 it isn't paused, -2 jobs run
]]
-- include remove_hard

local q, left = open_queue(KEYS[1]), tonumber(ARGV[1])
if not q.paused then return -1 end
if ARGV[2] ~= "1" and call("LLEN", q.active) > 0 then return -2 end

local function remove_some(state, is_list)
  local key = q.base .. state
  local ids = call(is_list and "LRANGE" or "ZRANGE", key, 0, left - 1)
  for _, id in ipairs(ids) do
    remove_hard(q, id)
    if state == "active" then call("DEL", q.base .. id .. ":lock") end
  end
  if #ids > 0 then
    if is_list then call("LTRIM", key, #ids, -1) else call("ZREMRANGEBYRANK", key, 0, #ids - 1) end
  end
  left = left - #ids
end

for _, state in ipairs({ "active", "delayed", "repeat", "completed", "wait", "paused", "prioritized", "failed", "waiting-children" }) do
  if state == "repeat" then
    for _, scheduler in ipairs(call("ZRANGE", q.base .. "repeat", 0, left - 1)) do
      call("DEL", q.base .. "repeat:" .. scheduler)
      call("ZREM", q.base .. "repeat", scheduler)
      left = left - 1
    end
  else
    remove_some(state, state == "active" or state == "wait" or state == "paused")
  end
  if left <= 0 then return 1 end
end

for _, suffix in ipairs({
  "events", "delay", "priority", "stalled-check", "stalled", "id", "pc", "marker", "meta", "limiter",
  "metrics:completed", "metrics:completed:data", "metrics:failed", "metrics:failed:data",
}) do
  call("DEL", q.base .. suffix)
end
return 0

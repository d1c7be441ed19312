#!lua flags=no-writes
--[[ get_state
Finds the collection that holds a job, in the order of wire 3.12.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  job id
Returns  the collection's key name, or "unknown"
]]
local base, id = KEYS[1], ARGV[1]
for _, state in ipairs({ "completed", "failed", "delayed", "prioritized" }) do
  if redis.call("ZSCORE", base .. state, id) then return state end
end
for _, state in ipairs({ "active", "wait", "paused" }) do
  if redis.call("LPOS", base .. state, id) then return state end
end
return redis.call("ZSCORE", base .. "waiting-children", id) and "waiting-children" or "unknown"

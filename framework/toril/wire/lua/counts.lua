#!lua flags=no-writes
--[[ counts
Counts jobs by state, all at one instant.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  key names of states, one or more
Returns  a count for each
]]
local counts = {}
for i, state in ipairs(ARGV) do
  local is_list = state == "wait" or state == "paused" or state == "active"
  counts[i] = redis.call(is_list and "LLEN" or "ZCARD", KEYS[1] .. state)
end
return counts

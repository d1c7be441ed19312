#!lua flags=allow-oom
--[[ renew_locks
Extends the locks that the caller still holds (wire 3.4).

KEYS[1]  base of the queue's keys
ARGV[1]  lock duration, ms
ARGV[2]  then pairs: job id, token
Returns  {id, -2 or -6…} for the locks that are gone (-2) or another's (-6)
]]
local base, lock_ms = KEYS[1], ARGV[1]
local stalled, lost = base .. "stalled", {}
for i = 2, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  local lock = base .. id .. ":lock"
  local holder = redis.pcall("GET", lock) -- a key of another type is one lost lock, and must not cost the others theirs
  if holder == token then
    redis.call("SET", lock, token, "PX", lock_ms)
    redis.call("SREM", stalled, id)
  else
    lost[#lost + 1] = id
    lost[#lost + 1] = holder and -6 or -2
  end
end
return lost

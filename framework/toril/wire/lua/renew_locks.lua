#!lua flags=allow-oom
--[[ renew_locks
Extends the locks that the caller still holds (wire 3.4), and tells which of its jobs somebody wants to be cancelled.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  lock duration, ms
ARGV[2]  then pairs: job id, token
Returns  {id, -2 or -6 or 1…} for the locks that are gone (-2) or another's (-6), and for jobs to cancel (1)
]]
local base, own, lock_ms = KEYS[1], KEYS[2], ARGV[1]
local stalled, told = base .. "stalled", {}
for i = 2, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  local lock = base .. id .. ":lock"
  local holder = redis.pcall("GET", lock) -- a key of another type is one lost lock, and must not cost the others theirs
  local code = holder and -6 or -2
  if holder == token then
    redis.call("PEXPIRE", lock, lock_ms, "GT") -- not shorter than `extend_lock` has made it
    redis.pcall("SREM", stalled, id) -- nor must this one
    code = redis.call("EXISTS", own .. "cancel:" .. id)
  end
  if code ~= 0 then
    told[#told + 1] = id
    told[#told + 1] = code
  end
end
return told

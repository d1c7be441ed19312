#!lua
--[[ declare_schedules
Begins to reconcile what an application declares of schedules (wire 11): nobody else does at the same time, no lower version does after
a higher one, and what is declared from now on is noted beside what was before, so that a crash leaves no schedule unknown.

KEYS[1]  hash, the application's schedules
ARGV[1]  now, ms
ARGV[2]  token of this reconciling
ARGV[3]  when it counts as dead, ms
ARGV[4]  the noted version by which the caller has judged, or ""
ARGV[5]  version of the application, or ""
ARGV[6]  pairs: scheduler id, its rule as JSON
Returns  1 begun, 0 another one is under way, -1 another version is noted by now
]]
local call, key, token = redis.call, KEYS[1], ARGV[2]
local noted = call("HMGET", key, "lock", "lock_until", "version")
-- The same token: its reply was lost, and it is sent again.
if noted[1] == token then return 1 end
if noted[1] and tonumber(noted[2]) > tonumber(ARGV[1]) then return 0 end
if (noted[3] or "") ~= ARGV[4] then return -1 end
call("HSET", key, "lock", token, "lock_until", ARGV[3], "version", ARGV[5])
for at = 6, #ARGV, 2 do
  call("HSET", key, "declared:" .. ARGV[at], ARGV[at + 1])
  call("HDEL", key, "added:" .. ARGV[at])
end
return 1

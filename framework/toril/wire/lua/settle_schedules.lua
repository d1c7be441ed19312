#!lua flags=allow-oom
--[[ settle_schedules
Ends the reconciling of an application's schedules (wire 11): forgets those that it doesn't declare any more, which are gone by now.

KEYS[1]  hash, the application's schedules
ARGV[1]  token of this reconciling
ARGV[2]  scheduler ids to forget, one an argument
Returns  1 settled, 0 it counted as dead and another one has begun since: nothing was forgotten
]]
local call, key = redis.call, KEYS[1]
if call("HGET", key, "lock") ~= ARGV[1] then return 0 end
for at = 2, #ARGV do call("HDEL", key, "declared:" .. ARGV[at]) end
call("HDEL", key, "lock", "lock_until")
return 1

#!lua flags=allow-oom
--[[ extend_lock
Lets a job belong to its worker for so long from now on (wire 3.4).

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  job id
ARGV[2]  token of its lock
ARGV[3]  how long, ms
Returns  0, -2 there is no lock, -6 it is held by another token
]]
local lock = KEYS[1] .. ARGV[1] .. ":lock"
local holder = redis.pcall("GET", lock) -- an error where the key is of another type: nobody's lock
if not holder then return -2 end
if holder ~= ARGV[2] then return -6 end
redis.call("PEXPIRE", lock, ARGV[3])
redis.pcall("SREM", KEYS[1] .. "stalled", ARGV[1])
return 0

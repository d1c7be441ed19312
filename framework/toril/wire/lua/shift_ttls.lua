#!lua
--[[ shift_ttls
For tests: lets time pass for every key under a prefix that has a time to live, and rings every queue's marker.

KEYS[1]  the prefix of the queues
KEYS[2]  and of our own keys
ARGV[1]  by how many ms
Returns  how many keys were shifted
]]
local by, shifted = tonumber(ARGV[1]), 0
for _, prefix in ipairs(KEYS) do
  for _, key in ipairs(redis.call("KEYS", prefix .. "[-:]*")) do
    local ttl = redis.call("PTTL", key)
    if ttl > 0 then
      shifted = shifted + 1
      if ttl <= by then redis.call("DEL", key) else redis.call("PEXPIRE", key, ttl - by) end
    end
    if string.sub(key, -5) == ":meta" then redis.call("ZADD", string.sub(key, 1, -5) .. "marker", 0, "0") end
  end
end
return shifted

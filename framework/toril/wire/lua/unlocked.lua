#!lua flags=no-writes
--[[ unlocked
Says for which of some jobs nobody holds a lock.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV     job ids
Returns  those without a lock
]]
local unlocked = {}
for _, id in ipairs(ARGV) do
  if redis.call("EXISTS", KEYS[1] .. id .. ":lock") == 0 then unlocked[#unlocked + 1] = id end
end
return unlocked

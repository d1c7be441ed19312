#!lua flags=allow-oom
--[[ drop_child_link
Lets a job's parent no longer wait for it (wire 3.10, removeChildDependency).

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  job id
Returns  0, 1 no parent waits for it, 2 its parent doesn't exist, -1 there is no such job
]]
-- include parents

local q = open_queue(KEYS[1])
local key = q.base .. ARGV[1]
if call("EXISTS", key) == 0 then return -1 end
local parent_key = call("HGET", key, "parentKey")
if not parent_key then return 1 end
if call("EXISTS", parent_key) == 0 then return 2 end
if call("SISMEMBER", parent_key .. ":dependencies", key) == 0 then return 1 end
drop_parent_link(q, key)
call("HDEL", key, "parentKey", "parent")
return 0

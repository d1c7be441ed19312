#!lua flags=allow-oom
--[[ pause
Stops all claiming from the queue; running jobs go on (wire 3.12).

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
Returns  0
]]
-- include queue

local q = open_queue(KEYS[1])
call("HSET", q.meta, "paused", 1)
call("DEL", q.marker)
event(q, "paused")
return 0

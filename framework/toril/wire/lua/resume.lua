#!lua flags=allow-oom
--[[ resume
Lets jobs be claimed again. What an old version moved to its `paused` list is put before all that waits, 7,000 a call (wire 3.12).

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
Returns  1 if some of that list remains, so that it must be called again; else 0
]]
-- include queue

local q = open_queue(KEYS[1])
local old = q.base .. "paused"
call("HDEL", q.meta, "paused")
if call("EXISTS", old) == 1 then
  if call("EXISTS", q.wait) == 0 then
    call("RENAME", old, q.wait)
  else
    local ids = call("LRANGE", old, 0, 6999)
    call("LTRIM", old, #ids, -1)
    call("RPUSH", q.wait, unpack(ids))
    if call("EXISTS", old) == 1 then return 1 end
  end
end
if call("LLEN", q.wait) + call("ZCARD", q.prioritized) > 0 then
  ring(q)
else
  wake_delayed(q)
end
event(q, "resumed")
return 0

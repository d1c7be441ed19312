#!lua
--[[ change_priority
Gives a job another priority. One that waits moves to its new place at once, any other keeps it for later (wire 3.10).

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  job id
ARGV[2]  priority; 0 for none
ARGV[3]  1: before all others of its priority, 0: behind them
Returns  0, or -1 if there is no such job
]]
-- include queue

local q, id, priority, first = open_queue(KEYS[1]), ARGV[1], tonumber(ARGV[2]), ARGV[3] == "1"
local key = q.base .. id
if call("EXISTS", key) == 0 then return -1 end
refuse(wrong_kind(key, "hash"))
if call("ZREM", q.prioritized, id) == 1 or call("LREM", q.wait, -1, id) == 1 then
  if priority == 0 then
    call(first and "RPUSH" or "LPUSH", q.wait, id)
    wake(q)
  elseif first then
    add_prioritized_front(q, id, priority)
  else
    add_prioritized(q, id, priority)
    wake(q)
  end
end
call("HSET", key, "priority", priority)
return 0

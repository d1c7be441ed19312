#!lua flags=allow-oom
--[[ drain
Removes up to `count` jobs that wait, but not what schedulers have waiting (wire 3.12), nor what something damaged refuses. No event tells of it.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  the collection: wait, paused, prioritized or delayed
ARGV[2]  how many at most
ARGV[3]  how many to pass by at its beginning: those that an earlier call has left
Returns  {how many were removed, how many there are to pass by from now on, or -1 at its end, ids that are left since something is damaged,
         each followed by what}
]]
-- include remove_hard
-- include leave

local q, key, count, passed = open_queue(KEYS[1]), KEYS[1] .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
refuse(wrong_kind(q.base .. "repeat", "zset"))
local is_list = ARGV[1] == "wait" or ARGV[1] == "paused"
local ids = call(is_list and "LRANGE" or "ZRANGE", key, passed, passed + count - 1)
local removed = 0
for _, id in ipairs(ids) do
  if is_pending_iteration(q, id) or not done_or_left(id, remove_hard, q, id) then
    passed = passed + 1
  else
    if is_list then call("LREM", key, 1, id) else call("ZREM", key, id) end
    removed = removed + 1
  end
end
return { removed, #ids < count and -1 or passed, left }

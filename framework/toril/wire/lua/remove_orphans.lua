#!lua flags=allow-oom
--[[ remove_orphans
Removes those of some jobs that are in no collection, so that nobody will ever run or find them (wire 3.12, removeOrphanedJobs).

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV     candidates: what follows the base in the names of keys
Returns  how many jobs were removed
]]
-- include remove_hard
-- include orphan

local q, removed = open_queue(KEYS[1]), 0

for _, id in ipairs(ARGV) do
  if is_orphan(q, id) then
    drop_parent_link(q, q.base .. id)
    remove_hard(q, id)
    removed = removed + 1
  end
end
return removed

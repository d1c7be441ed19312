#!lua flags=allow-oom
--[[ remove_orphans
Removes those of some jobs that are in no collection, so that nobody will ever run or find them (wire 3.12, removeOrphanedJobs),
but not those that something damaged refuses.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV     candidates: what follows the base in the names of keys
Returns  {how many jobs were removed, ids that are left since something is damaged, each followed by what}
]]
-- include remove_hard
-- include orphan
-- include leave

local q, removed = open_queue(KEYS[1]), 0

local function remove_one(id)
  drop_parent_link(q, q.base .. id)
  remove_hard(q, id)
end

for _, id in ipairs(ARGV) do
  if is_orphan(q, id) and done_or_left(id, remove_one, id) then removed = removed + 1 end
end
return { removed, left }

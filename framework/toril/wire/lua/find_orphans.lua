#!lua flags=no-writes
--[[ find_orphans
Says which of some jobs are in no collection, so that nobody will ever run or find them.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV     candidates: what follows the base in the names of keys
Returns  those that are
]]
-- include queue
-- include orphan

local q, found = open_queue(KEYS[1]), {}
for _, id in ipairs(ARGV) do
  if is_orphan(q, id) then found[#found + 1] = id end
end
return found

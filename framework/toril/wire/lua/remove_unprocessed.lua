#!lua flags=allow-oom
--[[ remove_unprocessed
Removes the children of a job that have not ended, and theirs, but for those that a worker runs (wire 3.11, removeUnprocessedChildren).

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  job id
Returns  how many were removed, -1 there is no such job
]]
-- include remove_job

local q = open_queue(KEYS[1])
local root = q.base .. ARGV[1]
if call("EXISTS", root) == 0 then return -1 end

local removed, seen = 0, { [root] = true }
local function remove_below(key)
  for _, child in ipairs(call("SMEMBERS", key .. ":dependencies")) do
    if not seen[child] then
      seen[child] = true
      local base, id = split_key(q, child)
      local cq = queue_of(q, base)
      if call("EXISTS", child .. ":lock") == 0 and not call("ZSCORE", base .. "failed", id) then
        drop_parent_link(q, child) -- before its own children release it
        remove_below(child)
        remove_job(cq, q, id)
        removed = removed + 1
      end
    end
  end
end
remove_below(root)
return removed

-- include fail

-- §3.5.2 and §3.15.4, hard: a job goes away with all that belongs to it. The caller takes it out of its collection, but afterwards:
-- where something damaged refuses this, it must not be lost.
local function remove_hard(q, id)
  local key = q.base .. id
  drop_parent_link_hard(q, key)
  drop_deduplication(q, key, id)
  drop_keys(key)
  forget(q, id)
end

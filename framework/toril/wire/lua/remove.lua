#!lua flags=allow-oom
--[[ remove
Removes a job, its children and all that belongs to them (wire 3.11).

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  job id
Returns  1 removed (also if there was none), 0 a worker holds a lock on it or on a pending descendant,
         -8 it is a job scheduler's pending iteration
]]
-- include remove_job

local q, id = open_queue(KEYS[1]), ARGV[1]
local root = q.base .. id

if is_pending_iteration(q, id) then return -8 end

-- The job and all below it, each once. Only pending ones can be at work.
local keys, below = { root }, { [root] = {} }
local at = 1
while keys[at] do
  local key = keys[at]
  if call("EXISTS", key .. ":lock") == 1 then return 0 end
  local function look_below(children)
    for _, child in ipairs(children) do
      if not below[child] then
        below[child] = {}
        keys[#keys + 1] = child
        table.insert(below[key], child)
      end
    end
  end
  look_below(call("HKEYS", key .. ":processed"))
  look_below(call("HKEYS", key .. ":failed"))
  look_below(call("ZRANGE", key .. ":unsuccessful", 0, -1))
  look_below(call("SMEMBERS", key .. ":dependencies"))
  at = at + 1
end

-- Children go before their parent, which the last of them releases; the link to its own parent is the first to go.
local function remove_tree(key)
  local base, job_id = q.base, id
  if key ~= root then base, job_id = split_key(q, key) end
  drop_parent_link(q, key)
  for _, child in ipairs(below[key]) do
    remove_tree(child)
  end
  remove_job(queue_of(q, base), q, job_id)
end

remove_tree(root)
return 1

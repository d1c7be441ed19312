#!lua
--[[ add_flow
Adds a tree of jobs that wait for each other, all or none, level by level (wire 3.13).

KEYS[1]  base of the root's queue; the others' keys share its slot
KEYS[2]  base of our own keys there
ARGV[1]  now, ms
ARGV[2]  a token that makes the add repeatable, or ""
ARGV[3]  then for each job thirteen values: base of its queue, name, data, opts, timestamp, delay, priority, lifo (1 or 0), id,
         deduplication as JSON or "", parent's full key or "", `parent` as the child's hash has it, has children (1 or 0)
Returns  for each job its id, or -7 if a job with its id has another parent; -5 alone if the root's parent isn't there
]]
-- include add_job
-- include answered

local now = tonumber(ARGV[1])
local token = ARGV[2]
local before = answered(KEYS[2], token)
if before then return before end
local root = open_queue(KEYS[1])
local parent_of_root = unpack(ARGV, 13, 13)
if parent_of_root ~= "" and call("EXISTS", parent_of_root) == 0 then return -5 end

-- Whether none of the ids was ever here, neither as a job nor in our notes, nor stands twice in the flow: mostly they have been made up for it.
local function are_all_new()
  local seen, keys = {}, {}
  for i = 3, #ARGV, 13 do
    local base, id = ARGV[i], ARGV[i + 8]
    if seen[base .. id] then return false end
    seen[base .. id] = true
    local n, own = #keys, "toril:" .. base
    keys[n + 1], keys[n + 2], keys[n + 3] = base .. id, own .. "unknown:" .. id, own .. "cancel:" .. id
    if n >= 3000 then
      if call("EXISTS", unpack(keys)) > 0 then return false end
      keys = {}
    end
  end
  return #keys == 0 or call("EXISTS", unpack(keys)) == 0
end

local is_new = are_all_new()
for i = 3, #ARGV, 13 do
  refuse(add_obstacle(queue_of(root, ARGV[i]), is_new and "" or ARGV[i + 8], ARGV[i + 9], ARGV[i + 10], ARGV[i + 11]))
end

local ids, queues, parents = {}, {}, {}
for i = 3, #ARGV, 13 do
  local base, name, data, opts, timestamp, delay, priority, lifo, custom, rule, parent_key, parent, has_children = unpack(ARGV, i, i + 12)
  local q = queue_of(root, base)
  queues[base] = q
  local id = add_job(q, {
    name = name, data = data, opts = opts, timestamp = timestamp, delay = delay, priority = priority, lifo = lifo == "1",
    custom = custom, is_new = is_new, rule = rule, has_children = has_children == "1",
    parent_key = parent_key ~= "" and parent_key or nil, parent = parent_key ~= "" and parent or nil,
  }, true)
  if has_children == "1" and type(id) == "string" then parents[#parents + 1] = { q, id } end
  ids[#ids + 1] = id
end

-- A child may have been there before, and be done already: its parent has nothing to wait for then.
for _, parent in ipairs(parents) do
  local q, id = parent[1], parent[2]
  local key = q.base .. id
  if call("HDEL", key, "flowAttachmentFailed") == 0 and call("SCARD", key .. ":dependencies") == 0 then release(q, id, now) end
end
for _, q in pairs(queues) do
  ring_for(q)
end
return answer(KEYS[2], token, ids)

#!lua
--[[ add
Adds jobs, in order (wire 3.1). A job whose custom id exists already is left as it is.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  a token that makes the add repeatable, or ""
ARGV[2]  then for each job eleven values: name, data, opts, timestamp, delay, priority, lifo (1 or 0), custom id or "",
         deduplication as JSON or "", parent's full key or "", `parent` as the child's hash has it
Returns  the ids; instead of one {id} if that job was there already and stands for this one. Or {place of the job from 0, -5} if its parent isn't there, or
         {place, -7} if a job with its id has another parent; with -5 nothing was added at all
]]
-- include add_job
-- include answered

local token = ARGV[1]
local before = answered(KEYS[2], token)
if before then return before end
local q = open_queue(KEYS[1])

for i = 2, #ARGV, 11 do
  local parent_key = ARGV[i + 9]
  refuse(add_obstacle(q, ARGV[i + 7], ARGV[i + 8], parent_key, ARGV[i + 10]))
  if parent_key ~= "" and call("EXISTS", parent_key) == 0 then return { (i - 2) / 11, -5 } end
end

local ids, refused = {}, nil
for i = 2, #ARGV, 11 do
  local name, data, opts, timestamp, delay, priority, lifo, custom, rule, parent_key, parent = unpack(ARGV, i, i + 10)
  local id, is_new = add_job(q, {
    name = name, data = data, opts = opts, timestamp = timestamp, delay = delay, priority = priority, lifo = lifo == "1",
    custom = custom, rule = rule, parent_key = parent_key ~= "" and parent_key or nil, parent = parent_key ~= "" and parent or nil,
  })
  if id == -7 and not refused then refused = { (i - 2) / 11, -7 } end
  ids[#ids + 1] = is_new and id or { id }
end
ring_for(q)
return answer(KEYS[2], token, refused or ids)

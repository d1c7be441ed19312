#!lua
--[[ add
Adds jobs, in order (wire 3.1). A job whose custom id exists already is left as it is.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  now, ms
ARGV[2]  then for each job eight values: name, data, opts, timestamp, delay, priority, lifo (1 or 0), custom id or ""
Returns  the ids
]]
-- include store

local now = tonumber(ARGV[1])
local q = open_queue(KEYS[1])
local ids, placed = {}, {}
max_events(q)

for i = 2, #ARGV, 8 do
  local name, data, opts, timestamp, delay, priority, lifo, custom = unpack(ARGV, i, i + 7)
  local counter = call("INCR", q.base .. "id")
  local id = custom ~= "" and custom or tostring(counter)
  if custom ~= "" and call("EXISTS", q.base .. id) == 1 then
    trimming_event(q, "duplicated", "jobId", id)
  else
    local job = { name = name, data = data, opts = opts, timestamp = timestamp, delay = delay, priority = priority, lifo = lifo == "1" }
    store(q, id, job)
    placed[place(q, id, job, now)] = true
  end
  ids[#ids + 1] = id
end

if placed.waiting then wake(q) end
if placed.delayed then wake_delayed(q) end
return ids

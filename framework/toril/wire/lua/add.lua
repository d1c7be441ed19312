#!lua
--[[ add
Adds jobs, in order (wire 3.1). A job whose custom id exists already is left as it is.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  a token that makes the add repeatable, or ""
ARGV[2]  1: each job is somebody else's, and what keeps one from being added keeps no other one; 0: they are one add
ARGV[3]  then for each job eleven values: name, data, opts, timestamp, delay, priority, lifo (1 or 0), custom id or "",
         deduplication as JSON or "", parent's full key or "", `parent` as the child's hash has it
Returns  the ids; instead of one {id} if that job was there already and stands for this one. Of one add {place of the job from 0, -5} if its
         parent isn't there, or {place, -7} if a job with its id has another parent; with -5 nothing was added at all. Of jobs of their own
         the code instead of the id, or {"", what stopped it}
]]
-- include add_job
-- include answered

local FIRST, VALUES = 3, 11
local token, alone = ARGV[1], ARGV[2] == "1"
local before = answered(KEYS[2], token)
if before then return before end

-- What is touched by jobs that only go to the end of the queue, which most of them do.
local PLAIN = { id = "string", meta = "hash", events = "stream", wait = "list", active = "list", marker = "zset" }

-- Whether all jobs are such ones; and whether they can be added together: several, with automatic ids, behind the others.
local function look_through()
  local together = #ARGV >= FIRST + VALUES
  for i = FIRST, #ARGV, VALUES do
    local delay, priority, rule, parent_key = ARGV[i + 4], ARGV[i + 5], ARGV[i + 8], ARGV[i + 9]
    if delay ~= "0" or priority ~= "0" or rule ~= "" or parent_key ~= "" then return false, false end
    if ARGV[i + 6] == "1" or ARGV[i + 7] ~= "" then together = false end
  end
  return true, together
end

local are_plain, together = look_through()
local q = open_queue(KEYS[1], are_plain and PLAIN or nil)

local function job_at(i)
  local name, data, opts, timestamp, delay, priority, lifo, custom, rule, parent_key, parent = unpack(ARGV, i, i + VALUES - 1)
  return {
    name = name, data = data, opts = opts, timestamp = timestamp, delay = delay, priority = priority, lifo = lifo == "1",
    custom = custom, rule = rule, parent_key = parent_key ~= "" and parent_key or nil, parent = parent_key ~= "" and parent or nil,
  }
end

-- What `add_job` does for each of such jobs, with one question for their ids and one write to the queue for all. Whatever stops it half-way,
-- those that are stored by then are also in the queue.
local function add_together(ids)
  local stored = {}
  max_events(q)
  local ok, problem = pcall(function()
    for n, id in ipairs(ids) do
      store(q, id, job_at(FIRST + (n - 1) * VALUES))
      event(q, "waiting", "jobId", id)
      stored[n] = id
    end
  end)
  trim_events(q) -- behind the last one, so that the stream ends as short as if each event had trimmed it
  if #stored > 0 then
    call("LPUSH", q.wait, unpack(stored))
    wake(q)
  end
  if not ok then error(problem) end
end

local ids = together and free_ids(q, (#ARGV - FIRST + 1) / VALUES)
if ids then
  add_together(ids)
  return answer(KEYS[2], token, ids)
end

-- Raises what would stop one of them half-way.
local function check(i)
  refuse(add_obstacle(q, ARGV[i + 7], ARGV[i + 8], ARGV[i + 9], ARGV[i + 10]))
end

if not alone then
  for i = FIRST, #ARGV, VALUES do
    check(i)
    local parent_key = ARGV[i + 9]
    if parent_key ~= "" and call("EXISTS", parent_key) == 0 then return { (i - FIRST) / VALUES, -5 } end
  end
end

local function add_at(i)
  if alone then check(i) end
  return add_job(q, job_at(i))
end

local answers, refused = {}, nil
for i = FIRST, #ARGV, VALUES do
  local ok, id, is_new = true, nil, nil
  if alone then
    ok, id, is_new = pcall(add_at, i)
  else
    id, is_new = add_at(i)
  end
  if not ok then
    answers[#answers + 1] = { "", type(id) == "table" and id.err or tostring(id) }
  elseif alone and type(id) == "number" then
    answers[#answers + 1] = id
  else
    if id == -7 and not refused then refused = { (i - FIRST) / VALUES, -7 } end
    answers[#answers + 1] = is_new and id or { id }
  end
end
ring_for(q)
return answer(KEYS[2], token, refused or answers)

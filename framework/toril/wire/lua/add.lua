#!lua
--[[ add
Adds jobs, in order (wire 3.1). A job whose custom id exists already is left as it is.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  a token that makes the add repeatable, or ""
ARGV[2]  1: each job is somebody else's, and what keeps one from being added keeps no other one; 0: they are one add
ARGV[3]  then runs of jobs that differ in nothing but their data: how many, name, opts, timestamp, delay, priority, lifo (1 or 0),
         custom id or "", deduplication as JSON or "", parent's full key or "", `parent` as the child's hash has it; then the data of each
Returns  the ids; instead of one {id} if that job was there already and stands for this one. Of one add {place of the job from 0, -5} if its
         parent isn't there, or {place, -7} if a job with its id has another parent; with -5 nothing was added at all. Of jobs of their own
         the code instead of the id, or {"", what stopped it}
]]
-- include add_job
-- include answered

local token, alone = ARGV[1], ARGV[2] == "1"
local before = answered(KEYS[2], token)
if before then return before end

local function read_runs()
  local runs, total, i = {}, 0, 3
  while i <= #ARGV do
    local count, name, opts, timestamp, delay, priority, lifo, custom, rule, parent_key, parent = unpack(ARGV, i, i + 10)
    count = tonumber(count)
    local has_parent = parent_key ~= ""
    runs[#runs + 1] = {
      job = {
        name = name, opts = opts, timestamp = timestamp, delay = delay, priority = priority, lifo = lifo == "1",
        custom = custom, rule = rule, parent_key = has_parent and parent_key or nil, parent = has_parent and parent or nil,
      },
      first = i + 11, last = i + 10 + count, place = total,
    }
    total, i = total + count, i + 11 + count
  end
  return runs, total
end

local runs, total = read_runs()

-- What is touched by jobs that only go to the end of the queue, which most of them do.
local PLAIN = { id = "string", meta = "hash", events = "stream", wait = "list", active = "list", marker = "zset" }

-- Whether all jobs are such ones; and whether they can be added together: several, with automatic ids, behind the others.
local function look_through()
  local together = total > 1
  for _, run in ipairs(runs) do
    local job = run.job
    if job.delay ~= "0" or job.priority ~= "0" or job.rule ~= "" or job.parent_key then return false, false end
    if job.lifo or job.custom ~= "" then together = false end
  end
  return true, together
end

local are_plain, together = look_through()
local q = open_queue(KEYS[1], are_plain and PLAIN or nil)

-- Calls `act` for each job.
local function each(act)
  for _, run in ipairs(runs) do
    for i = run.first, run.last do
      run.job.data = ARGV[i]
      act(run.job)
    end
  end
end

-- What `add_job` does for each of such jobs, with one question for their ids and one write to the queue for all. Whatever stops it half-way,
-- those that are stored by then are also in the queue.
local function add_together(ids)
  local stored = {}
  max_events(q)
  local ok, problem = pcall(each, function(job)
    local id = ids[#stored + 1]
    store(q, id, job)
    event(q, "waiting", "jobId", id)
    stored[#stored + 1] = id
  end)
  trim_events(q) -- behind the last one, so that the stream ends as short as if each event had trimmed it
  if #stored > 0 then
    call("LPUSH", q.wait, unpack(stored))
    wake(q)
  end
  if not ok then error(problem) end
end

local ids = together and free_ids(q, total)
if ids then
  add_together(ids)
  return answer(KEYS[2], token, ids)
end

-- Raises what would stop a job half-way.
local function check(job)
  refuse(add_obstacle(q, job.custom, job.rule, job.parent_key or "", job.parent or ""))
end

if not alone then
  for _, run in ipairs(runs) do
    check(run.job)
    if run.job.parent_key and call("EXISTS", run.job.parent_key) == 0 then return { run.place, -5 } end
  end
end

local function add(job)
  if alone then check(job) end
  return add_job(q, job)
end

local answers, refused = {}, nil
each(function(job)
  local ok, id, is_new = true, nil, nil
  if alone then
    ok, id, is_new = pcall(add, job)
  else
    id, is_new = add(job)
  end
  if not ok then
    answers[#answers + 1] = { "", type(id) == "table" and id.err or tostring(id) }
  elseif alone and type(id) == "number" then
    answers[#answers + 1] = id
  else
    if id == -7 and not refused then refused = { #answers, -7 } end
    answers[#answers + 1] = is_new and id or { id }
  end
end)
ring_for(q)
return answer(KEYS[2], token, refused or answers)

-- include queue

-- What only some jobs have: by its name in a job here, and in the job's hash.
local LINKS = { parent_key = "parentKey", parent = "parent", scheduler = "rjk", deduplication = "deid" }

-- §3.0 STORE. `job` has name, data, opts, timestamp, delay, priority, and parent_key + parent, scheduler, deduplication or not.
local function store(q, id, job)
  local fields = {
    "name", job.name, "data", job.data, "opts", job.opts,
    "timestamp", job.timestamp, "delay", job.delay, "priority", job.priority,
  }
  for link, name in pairs(LINKS) do
    if job[link] then
      fields[#fields + 1] = name
      fields[#fields + 1] = job[link]
    end
  end
  call("HSET", q.base .. id, unpack(fields))
  event(q, "added", "jobId", id, "name", job.name)
end

-- §3.1.3: puts a stored job where it belongs, and tells. The caller rings: `wake` and `wake_delayed`, by what comes back.
local function place(q, id, job, now)
  local delay, priority = tonumber(job.delay), tonumber(job.priority)
  if delay > 0 then
    add_delayed(q, id, now + delay)
    trimming_event(q, "delayed", "jobId", id, "delay", now + delay)
    return "delayed"
  end
  add_waiting(q, id, priority, job.lifo)
  trimming_event(q, "waiting", "jobId", id)
  return "waiting"
end

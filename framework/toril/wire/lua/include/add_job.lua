-- include deduplicate
-- include parents

-- §3.1.2: a job with this id exists already. A parent that is given may adopt it, unless another one that still lives has it.
local function duplicate(q, id, job, now, in_flow)
  local key = q.base .. id
  if job.parent_key then
    local before = call("HMGET", key, "parentKey", "returnvalue")
    if before[1] and before[1] ~= job.parent_key and call("EXISTS", before[1]) == 1 then
      if in_flow then call("HSET", job.parent_key, "flowAttachmentFailed", 1) end
      return -7
    end
    if call("ZSCORE", q.base .. "completed", id) then
      call("HSET", job.parent_key .. ":processed", key, before[2] or "null")
      if not in_flow and call("SCARD", job.parent_key .. ":dependencies") == 0 then
        local pq, parent_id = locate_parent(q, job.parent_key, job.parent)
        release(pq, parent_id, now)
      end
    else
      call("SADD", job.parent_key .. ":dependencies", key)
    end
    call("HSET", key, "parentKey", job.parent_key, "parent", job.parent)
  end
  trimming_event(q, "duplicated", "jobId", id)
  return id
end

-- What would stop a script in the middle of adding a job: a key of its id, parent or deduplication and what is wrong with it, or nil.
local function add_obstacle(q, custom, rule, parent_key, parent)
  local problem = custom ~= "" and wrong_kind(q.base .. custom, "hash") or parent_key ~= "" and parent_obstacle(q, parent_key, parent)
  if problem or rule == "" then return problem or nil end
  local id = cjson.decode(rule).id
  local owner_key = q.base .. "de:" .. id
  problem = wrong_kind(owner_key, "string") or wrong_kind(q.base .. "dn:" .. id, "hash")
  local owner = not problem and call("GET", owner_key)
  return problem or owner and wrong_kind(q.base .. owner, "hash") or nil
end

-- §3.1: adds a job, and returns its id and true; else the id of the job that stands for it, or a code below 0. `ring_for` has to follow.
-- `job` has what `store` takes, and custom (id or ""), is_new (nobody has or had this id, for sure), rule (deduplication as JSON, or ""),
-- has_children. The time is its timestamp.
local function add_job(q, job, in_flow)
  local now = tonumber(job.timestamp)
  if job.parent_key and call("EXISTS", job.parent_key) == 0 then return -5 end
  local is_custom = job.custom ~= ""
  local id = is_custom and job.custom or free_id(q)
  if is_custom then count_id(q) end
  max_events(q)
  if is_custom and not job.is_new then
    if call("EXISTS", q.base .. id) == 1 then return duplicate(q, id, job, now, in_flow) end
    forget(q, id) -- only these ids can come again
  end
  if job.rule ~= "" then
    local rule = cjson.decode(job.rule)
    local other = deduplicate(q, rule, id, job, now)
    if other then return other end
    job.deduplication = rule.id
  end
  store(q, id, job)
  if job.has_children then
    call("ZADD", q.base .. "waiting-children", job.timestamp, id)
    trimming_event(q, "waiting-children", "jobId", id)
  elseif place(q, id, job, now) == "delayed" then
    q.has_delayed = true
  else
    q.has_waiting = true
  end
  if job.parent_key then call("SADD", job.parent_key .. ":dependencies", q.base .. id) end
  return id, true
end

-- Tells sleepers what was added; once for each queue is enough.
local function ring_for(q)
  if q.has_waiting then wake(q) end
  if q.has_delayed then wake_delayed(q) end
end

-- include store

-- §3.15: whether a job with a deduplication id may be added. `d` is as the options have it: {id, ttl, extend, replace, keepLastIfActive, reschedule}.
-- Returns nil if it may (the id is its own now), else the id of the job that stands for it.

local function deduplicated(q, owner, d, new_id)
  trimming_event(q, "deduplicated", "jobId", owner, "deduplicationId", d.id, "deduplicatedJobId", new_id)
  return owner
end

local function own(key, id, ttl)
  if ttl then call("SET", key, id, "PX", ttl) else call("SET", key, id) end
end

-- 7: a key without an end whose owner is gone would refuse everybody for ever.
local function is_stale(q, key, owner)
  return call("PTTL", key) == -1 and call("EXISTS", q.base .. owner) == 0
end

-- 3: the job that waits for its time gives way to the new one.
local function replace_owner(q, d, key, owner, new_id)
  if call("ZREM", q.delayed, owner) == 0 then return false end
  drop_keys(q.base .. owner)
  event(q, "removed", "jobId", owner, "prev", "delayed")
  trimming_event(q, "deduplicated", "jobId", new_id, "deduplicationId", d.id, "deduplicatedJobId", owner)
  call("DEL", q.base .. "dn:" .. d.id)
  if d.ttl and not d.extend and not d.keepLastIfActive then
    call("SET", key, new_id, "KEEPTTL")
  else
    own(key, new_id, not d.keepLastIfActive and d.ttl or nil)
  end
  return true
end

-- 5: while the owner runs, the newest payload is kept for when it has ended.
local function keep_for_later(q, d, key, owner, new_id, job)
  local next_key = q.base .. "dn:" .. d.id
  local fields = { "name", job.name, "data", job.data, "opts", job.opts, "jid", new_id }
  local function also(name, value)
    if value then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  also("pk", job.parent_key)
  also("pd", job.parent)
  if job.parent_key then also("pdk", job.parent_key .. ":dependencies") end
  also("rjk", job.scheduler)
  call("DEL", next_key)
  call("HSET", next_key, unpack(fields))
  call("PERSIST", key)
  return deduplicated(q, owner, d, new_id)
end

-- 6: a job that is refused may still move the one that stands for it.
local function reschedule_owner(q, owner, job, now)
  if not call("ZSCORE", q.delayed, owner) or call("EXISTS", q.base .. owner) == 0 then return end -- the server may have evicted the job
  local delay = math.max(tonumber(job.delay), 0)
  call("HSET", q.base .. owner, "delay", delay)
  add_delayed(q, owner, now + delay) -- behind all that are due then, its own old place included
  trimming_event(q, "delayed", "jobId", owner, "delay", now + delay)
  wake_delayed(q)
end

local function deduplicate(q, d, new_id, job, now)
  local key = q.base .. "de:" .. d.id
  local ttl = not d.keepLastIfActive and d.ttl or nil
  local owner = call("GET", key)
  if owner and is_stale(q, key, owner) then
    call("DEL", key, q.base .. "dn:" .. d.id)
    owner = false
  end
  if not owner then
    own(key, new_id, ttl)
    return nil
  end
  if d.keepLastIfActive and call("LPOS", q.active, owner) then return keep_for_later(q, d, key, owner, new_id, job) end
  if d.replace then
    if replace_owner(q, d, key, owner, new_id) then return nil end
    return owner -- without a word (V)
  end
  if d.extend and ttl then own(key, owner, ttl) end
  deduplicated(q, owner, d, new_id)
  if d.reschedule then reschedule_owner(q, owner, job, now) end
  return owner
end

-- include store
-- include keep

-- §3.15.4 and 5: the job that held a deduplication id has ended; the payload that came meanwhile, if any, follows it.
local function release_deduplication(q, id, deduplication, now)
  local owner_key = q.base .. "de:" .. deduplication
  local owner = call("GET", owner_key)
  if owner == id and call("PTTL", owner_key) == -1 then call("DEL", owner_key) end
  local next_key = q.base .. "dn:" .. deduplication
  local values = call("HMGET", next_key, "name", "data", "opts", "jid", "pk", "pd", "pdk", "rjk")
  if not values[1] or (owner and owner ~= id) then return end
  local counter = call("INCR", q.base .. "id")
  local next_id = values[4] or tostring(counter)
  local ok, opts = pcall(cjson.decode, values[3] or "{}")
  if not ok or type(opts) ~= "table" then opts = {} end
  local job = {
    name = values[1], data = values[2] or "{}", opts = values[3] or "{}", timestamp = tonumber(opts.timestamp) or now,
    delay = tonumber(opts.delay) or 0, priority = tonumber(opts.priority) or 0, lifo = opts.lifo == true,
    parent_key = values[5], parent = values[6], scheduler = values[8], deduplication = deduplication,
  }
  call("SET", owner_key, next_id)
  store(q, next_id, job)
  if place(q, next_id, job, now) == "delayed" then wake_delayed(q) else wake(q) end
  if values[7] then call("SADD", values[7], q.base .. next_id) end
  call("DEL", next_key)
end

-- Where a job that fails, is retried or moved stands: its hash's fields, or nil and why it can't be touched.
local function take_from_active(q, id, token, values_wanted)
  local key = q.base .. id
  local values = call("HMGET", key, unpack(values_wanted))
  if not values[1] then return nil, -1 end
  local code = unlock(q, id, token)
  if code < 0 then return nil, code end
  if call("LREM", q.active, -1, id) == 0 then return nil, -3 end
  return values, 0
end

local FINISH_FIELDS = { "name", "parentKey", "parent", "deid", "atm", "ats", "defa" }

-- §3.5: completed, or failed for good. `result` is the JSON of the value, or the reason.
local function finish(q, own, now, id, token, target, result, stack, rule_text, attempts)
  local key = q.base .. id
  if target == "completed" then
    if call("SCARD", key .. ":dependencies") ~= 0 then
      return call("EXISTS", key) == 1 and -4 or -1
    end
    if call("ZCARD", key .. ":unsuccessful") ~= 0 then
      return call("EXISTS", key) == 1 and -9 or -1
    end
  end
  local values, code = take_from_active(q, id, token, FINISH_FIELDS)
  if not values then return code end
  trim_events(q)
  if values[4] then release_deduplication(q, id, values[4], now) end
  local parent_key = values[2]
  if parent_key then
    if target == "completed" then
      child_done(q, key, parent_key, values[3], result, now)
    else
      child_failed(q, key, parent_key, values[3], result, now)
    end
  end
  local made = (tonumber(values[5]) or 0) + 1
  local rule = read_rule(rule_text)
  if rule.drop then
    drop_keys(key)
    if parent_key then call("SREM", parent_key .. ":dependencies", key) end
  else
    call("ZADD", q.base .. target, now, id)
    if target == "completed" then
      call("HSET", key, "returnvalue", result, "finishedOn", now, "atm", made)
    else
      call("HSET", key, "failedReason", result, "stacktrace", stack, "finishedOn", now, "atm", made)
      if values[7] then call("HDEL", key, "defa") end
    end
    if rule_text ~= "" then trim_finished(q, q.base .. target, rule, now) end
  end
  if (tonumber(values[6]) or 0) > 1 then call("DEL", own .. "unknown:" .. id, own .. "cancel:" .. id) end
  if target == "completed" then
    event(q, "completed", "jobId", id, "returnvalue", result, "prev", "active")
  else
    event(q, "failed", "jobId", id, "failedReason", result, "prev", "active")
    if made >= attempts then event(q, "retries-exhausted", "jobId", id, "attemptsMade", made) end
  end
  return 0
end

local RETRY_FIELDS = { "name", "priority", "atm" }

-- §3.7a: the attempt failed; it runs again at once.
local function retry_now(q, now, id, token, reason, stack, lifo)
  promote_due(q, now, is_blocked(q))
  local values, code = take_from_active(q, id, token, RETRY_FIELDS)
  if not values then return code end
  local priority = tonumber(values[2]) or 0
  add_waiting(q, id, priority, lifo)
  wake(q)
  call("HSET", q.base .. id, "failedReason", reason, "stacktrace", stack, "atm", (tonumber(values[3]) or 0) + 1)
  trimming_event(q, "waiting", "jobId", id, "prev", "active")
  return 0
end

-- §3.7b with a reason (an attempt that failed), §3.8 moveToDelayed without one.
local function delay_job(q, now, id, token, delay, reason, stack)
  local values, code = take_from_active(q, id, token, RETRY_FIELDS)
  if not values then return code end
  if reason then
    call("HSET", q.base .. id, "delay", delay, "failedReason", reason, "stacktrace", stack, "atm", (tonumber(values[3]) or 0) + 1)
  else
    call("HSET", q.base .. id, "delay", delay)
  end
  add_delayed(q, id, now + delay)
  trimming_event(q, "delayed", "jobId", id, "delay", now + delay)
  wake_delayed(q)
  return 0
end

-- §3.8 moveToWait, with the ring also for a prioritized job (§11). A job that isn't active stays where it is.
local function put_back(q, id, token)
  local priority = call("HMGET", q.base .. id, "name", "priority")
  if not priority[1] then return -1 end
  local code = unlock(q, id, token)
  if code < 0 then return code end
  if call("LREM", q.active, 1, id) == 0 then return 0 end
  priority = tonumber(priority[2]) or 0
  if priority > 0 then
    add_prioritized_front(q, id, priority)
  else
    call("RPUSH", q.wait, id)
  end
  wake(q)
  trimming_event(q, "waiting", "jobId", id, "prev", "active")
  return 0
end

-- §11: nobody here handles the job's name. Put off five times, each time for twice as long (0); then it fails (1).
local function put_off_unknown(q, own, now, id, token, reason, stack, rule_text, first_delay)
  local seen_key = own .. "unknown:" .. id
  local seen = (tonumber(call("GET", seen_key)) or 0) + 1
  if seen > 5 then
    local code = finish(q, own, now, id, token, "failed", reason, stack, rule_text, 0)
    return code == 0 and 1 or code
  end
  local code = delay_job(q, now, id, token, first_delay * 2 ^ (seen - 1))
  if code == 0 then call("SET", seen_key, seen, "PX", 86400000) end
  return code
end

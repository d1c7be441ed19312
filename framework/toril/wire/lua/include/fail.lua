-- include store
-- include keep
-- include metrics

-- §3.15.4 and 5: the job that held a deduplication id has ended; the payload that came meanwhile, if any, follows it.
local function release_deduplication(q, id, deduplication, now)
  local owner_key = q.base .. "de:" .. deduplication
  if wrong_kind(owner_key, "string") then return end -- nobody knows who holds it, so nobody can give it back
  local owner = call("GET", owner_key)
  if owner == id and call("PTTL", owner_key) == -1 then call("DEL", owner_key) end
  local next_key = q.base .. "dn:" .. deduplication
  local values = redis.pcall("HMGET", next_key, "name", "data", "opts", "jid", "pk", "pd", "pdk", "rjk")
  if not values[1] then return end
  local automatic = try_count_id(q)
  local next_id = values[4] or automatic
  if not next_id or wrong_kind(q.base .. next_id, "hash") then return end
  local ok, opts = pcall(cjson.decode, values[3] or "{}")
  if not ok or type(opts) ~= "table" then opts = {} end
  local job = {
    name = values[1], data = values[2] or "{}", opts = values[3] or "{}", timestamp = tonumber(opts.timestamp) or now,
    delay = tonumber(opts.delay) or 0, priority = tonumber(opts.priority) or 0, lifo = opts.lifo == true,
    parent_key = values[5], parent = values[6], scheduler = values[8], deduplication = deduplication,
  }
  if values[4] then forget(q, next_id) end
  call("SET", owner_key, next_id)
  store(q, next_id, job)
  if job.delay < 0 then -- unlike any other job's: due at once, but among the delayed
    add_delayed(q, next_id, now)
    trimming_event(q, "delayed", "jobId", next_id, "delay", now)
    wake_delayed(q)
  elseif place(q, next_id, job, now) == "delayed" then
    wake_delayed(q)
  else
    wake(q)
  end
  if values[7] and not wrong_kind(values[7], "set") then call("SADD", values[7], q.base .. next_id) end
  call("DEL", next_key)
end

-- Whether an id is that of the job that a scheduler has waiting: without it, the schedule would end.
local function is_pending_iteration(q, id)
  local scheduler = field(q.base .. id, "rjk")
  if not scheduler then return false end
  local due = call("ZSCORE", q.base .. "repeat", scheduler)
  return due ~= false and id == "repeat:" .. scheduler .. ":" .. string.format("%.0f", tonumber(due))
end

-- §11: a job that was taken out of `from` fails without an attempt's outcome: §3.5 steps 7, 8, 10, 11, and 13.
local function fail_unasked(q, now, id, from, reason, rule_text)
  settle(q)
  local key = q.base .. id
  local values = redis.pcall("HMGET", key, "parentKey", "parent", "deid")
  trim_events(q)
  if values[3] then release_deduplication(q, id, values[3], now) end
  local parent_key = values[1]
  if parent_key then child_failed(q, key, parent_key, values[2], reason, now) end
  local rule = read_rule(rule_text)
  if rule.drop then
    if parent_key then drop_parent_link(q, key) end -- a parent that waits for it in vain goes on
    drop_keys(key)
  else
    call("HSET", key, "failedReason", reason, "finishedOn", now)
    call("HDEL", key, "defa")
    put_finished(q, q.base .. "failed", id, rule_text, now)
    settle(q)
  end
  forget(q, id)
  event(q, "failed", "jobId", id, "failedReason", reason, "prev", from)
  if q.metrics_points > 0 then count_in_metrics(q, "failed", now, q.metrics_points) end
end

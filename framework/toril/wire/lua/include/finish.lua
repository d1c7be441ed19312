-- include store
-- include keep
-- include fail
-- include fresh

local UNLOCKED = true -- in place of a token

-- What all endings ask first, asked for all at once: who holds their locks, and whether any of the completed jobs has children.
-- `completed` and `locked` are ids.
local function read_ahead(q, completed, locked)
  local children, locks = {}, {}
  for i, id in ipairs(completed) do
    children[2 * i - 1], children[2 * i] = q.base .. id .. ":dependencies", q.base .. id .. ":unsuccessful"
  end
  for i, id in ipairs(locked) do
    locks[i] = q.base .. id .. ":lock"
  end
  q.none_has_children = #children == 0 or call("EXISTS", unpack(children)) == 0
  local held = #locks > 0 and call("MGET", unpack(locks)) or {}
  q.holders = {}
  for i, id in ipairs(locked) do
    q.holders[id] = held[i]
  end
end

-- §3.0 UNLOCK, done by `settle`: 0, or -2 (no lock), or -6 (another token's). Token "0" means that no lock was taken. `forgets`: and `forget`.
local function unlock(q, id, token, forgets)
  if token == "0" then
    if forgets then forget(q, id) end
    return 0
  end
  local lock = q.base .. id .. ":lock"
  local holder = q.holders[id] or call("GET", lock) -- MGET also finds nothing where no text is
  if not holder or holder == UNLOCKED then return -2 end
  if holder ~= token then return -6 end
  q.holders[id] = UNLOCKED
  local unlocked = q.unlocked or { keys = {}, ids = {} }
  q.unlocked = unlocked
  local keys, ids = unlocked.keys, unlocked.ids
  ids[#ids + 1] = id
  local n = #keys
  keys[n + 1] = lock
  if forgets and has_notes(q) then
    keys[n + 2], keys[n + 3] = q.own .. "unknown:" .. id, q.own .. "cancel:" .. id
  end
  return 0
end

local PARENT_KEY = 2
local FINISH_FIELDS = { "name", "parentKey", "deid", "atm" }
local RETRY_FIELDS = { "name", "parentKey", "priority", "atm" }

-- Where a job that fails, is retried or moved stands: its hash's fields, or nil and why it can't be touched. -14 and what is wrong: a key of
-- its parent keeps its end from being written, and nothing has happened. Where it has a parent, `parent` of its hash comes third.
local function take_from_active(q, id, token, values_wanted, forgets)
  local key = q.base .. id
  local values = call("HMGET", key, unpack(values_wanted))
  if not values[1] then return nil, -1 end
  local parent
  if values[PARENT_KEY] then
    parent = call("HGET", key, "parent")
    local problem = parent_obstacle(q, values[PARENT_KEY], parent)
    if problem then return nil, -14, problem end
  end
  local code = unlock(q, id, token, forgets)
  if code < 0 then return nil, code end
  if call("LREM", q.active, -1, id) == 0 then return nil, -3 end
  return values, 0, parent
end

-- §3.5: completed, or failed for good, which may add a letter to the queue for dead letters. `result` is the JSON of the value, or the
-- reason. -13 and what is wrong: the letter can't be written, and nothing has happened.
local function finish(q, now, id, token, target, result, stack, rule_text, attempts, letter)
  local key, finished = q.base .. id, q.base .. target
  if target == "completed" and not q.none_has_children and call("EXISTS", key .. ":dependencies", key .. ":unsuccessful") > 0 then
    if call("EXISTS", key) == 0 then return -1 end
    return call("SCARD", key .. ":dependencies") > 0 and -4 or -9
  end
  local problem = letter and obstacle(letter.base, letter)
  if problem then return -13, problem end
  local values, code, parent_or_why = take_from_active(q, id, token, FINISH_FIELDS, true)
  if not values then return code, parent_or_why end
  trim_events(q)
  local parent_key, deduplication = values[2], values[3]
  if deduplication or parent_key and target == "failed" then settle(q) end -- a child that is done changes nothing that was read ahead
  if deduplication then release_deduplication(q, id, deduplication, now) end
  if parent_key then
    local told = target == "completed" and child_done or child_failed
    told(q, key, parent_key, parent_or_why, result, now)
  end
  local made = (tonumber(values[4]) or 0) + 1
  local rule = read_rule(rule_text)
  if rule.drop then
    if parent_key then drop_parent_link(q, key) end -- a parent that waits for it in vain goes on
    drop_keys(key)
  else
    if target == "completed" then
      call("HSET", key, "returnvalue", result, "finishedOn", q.now_text, "atm", made)
    else
      call("HSET", key, "failedReason", result, "stacktrace", stack, "finishedOn", q.now_text, "atm", made)
      call("HDEL", key, "defa")
    end
    put_finished(q, finished, id, rule_text, now)
  end
  if target == "completed" then
    event(q, "completed", "jobId", id, "returnvalue", result, "prev", "active")
  else
    event(q, "failed", "jobId", id, "failedReason", result, "prev", "active")
    if made >= attempts then event(q, "retries-exhausted", "jobId", id, "attemptsMade", made) end
  end
  if q.metrics_points > 0 then count_in_metrics(q, target, now, q.metrics_points) end
  if letter then add_fresh(queue_of(q, letter.base), letter, now) end
  return 0
end

-- What an ending answers besides 0 and the refusals; the client knows the numbers by the same names.
local NO_CHILD_PENDING, UNKNOWN_NAME_FAILED, ENDED_CANCELLED = 1, 2, 3

-- §11: somebody has cancelled the job while it ran, and its worker has not heard of it in time: it ends now, whatever that wanted.
-- The code and the reason, or nil if nobody has. `stack` is that of the attempt, or "".
local function ends_cancelled(q, now, id, stack, rule_text)
  local reason = call("GET", q.own .. "cancel:" .. id)
  if not reason then return nil end
  count_up(q.base .. id, "atm")
  if stack ~= "" then call("HSET", q.base .. id, "stacktrace", stack) end
  fail_unasked(q, now, id, "active", "cancelled: " .. reason, rule_text)
  return ENDED_CANCELLED, reason
end

-- §3.7a: the attempt failed; it runs again at once.
local function retry_now(q, now, id, token, reason, stack, lifo, rule_text)
  promote_due(q, now, is_blocked(q))
  local values, code, why = take_from_active(q, id, token, RETRY_FIELDS)
  if not values then return code, why end
  local ended
  ended, why = ends_cancelled(q, now, id, stack, rule_text)
  if ended then return ended, why end
  local priority = tonumber(values[3]) or 0
  add_waiting(q, id, priority, lifo)
  wake(q)
  call("HSET", q.base .. id, "failedReason", reason, "stacktrace", stack, "atm", (tonumber(values[4]) or 0) + 1)
  trimming_event(q, "waiting", "jobId", id, "prev", "active")
  return 0
end

-- §3.7b with a reason (an attempt that failed), §3.8 moveToDelayed without one ("").
local function delay_job(q, now, id, token, delay, reason, stack, rule_text)
  local values, code, why = take_from_active(q, id, token, RETRY_FIELDS)
  if not values then return code, why end
  local ended
  ended, why = ends_cancelled(q, now, id, stack, rule_text)
  if ended then return ended, why end
  if stack ~= "" then
    call("HSET", q.base .. id, "delay", delay, "failedReason", reason, "stacktrace", stack, "atm", (tonumber(values[4]) or 0) + 1)
  else
    call("HSET", q.base .. id, "delay", delay)
  end
  add_delayed(q, id, now + delay)
  trimming_event(q, "delayed", "jobId", id, "delay", now + delay)
  wake_delayed(q)
  return 0
end

-- §3.8 moveToWait, with the ring also for a prioritized job (§11). A job that isn't active stays where it is.
-- `limit_ms` above 0: nobody who has a rate limit may claim for so long. With a limit, what is left of it comes back as well.
local function put_back(q, now, id, token, limit_ms, rule_text)
  local values = call("HMGET", q.base .. id, "name", "priority", "parentKey", "parent")
  if not values[1] then return -1 end
  local problem = values[3] and parent_obstacle(q, values[3], values[4])
  if problem then return -14, problem end
  local code = unlock(q, id, token)
  if code < 0 then return code end
  if limit_ms and limit_ms > 0 then call("SET", q.limiter, "9007199254740991", "PX", limit_ms) end
  if call("LREM", q.active, 1, id) == 0 then return 0 end
  local ended, why = ends_cancelled(q, now, id, "", rule_text)
  if ended then return ended, why end
  local priority = tonumber(values[2]) or 0
  if priority > 0 then
    add_prioritized_front(q, id, priority)
  else
    call("RPUSH", q.wait, id)
  end
  wake(q)
  trimming_event(q, "waiting", "jobId", id, "prev", "active")
  return 0, limit_ms and math.max(call("PTTL", q.limiter), 0)
end

-- §3.8 moveToWaitingChildren: 0 it waits for its children now, NO_CHILD_PENDING and nothing was changed.
local function wait_for_children(q, now, id, token, rule_text)
  local key = q.base .. id
  if call("EXISTS", key) == 0 then return -1 end
  if call("ZCARD", key .. ":unsuccessful") ~= 0 then return -9 end
  if call("SCARD", key .. ":dependencies") == 0 then return NO_CHILD_PENDING end
  local values, code, why = take_from_active(q, id, token, RETRY_FIELDS)
  if not values then return code, why end
  local ended
  ended, why = ends_cancelled(q, now, id, "", rule_text)
  if ended then return ended, why end
  call("ZADD", q.base .. "waiting-children", now, id)
  event(q, "waiting-children", "jobId", id, "prev", "active")
  return 0
end

-- §11: nobody here handles the job's name. Put off five times, each time for twice as long (0); then it fails.
-- `rest` is "first delay in ms,allowed attempts".
local function put_off_unknown(q, now, id, token, reason, stack, rule_text, rest, letter)
  local first_delay, attempts = string.match(rest, "^(%d+),(%d+)$")
  local seen = (tonumber(call("GET", q.own .. "unknown:" .. id)) or 0) + 1
  if seen > 5 then
    local code, why = finish(q, now, id, token, "failed", reason, stack, rule_text, tonumber(attempts), letter)
    return code == 0 and UNKNOWN_NAME_FAILED or code, why
  end
  local code, why = delay_job(q, now, id, token, tonumber(first_delay) * 2 ^ (seen - 1), "", "", rule_text)
  if code == 0 then note(q, "unknown", id, seen, 86400000) end
  return code, why
end

-- include store
-- include parents

-- (Not by "%s", which ends at a NUL.)
local function iteration_id(scheduler, due)
  return "repeat:" .. scheduler .. ":" .. string.format("%.0f", due)
end

local KEYS_OF_A_JOB = { logs = true, lock = true, dependencies = true, processed = true, failed = true, unsuccessful = true }

-- The scheduler whose run at some time from now on would have the key of this one's record, or a key that belongs to such a run:
-- "x" of "x:1700000000000" and "x:1700000000000:logs". Nil: there is none.
local function namesake(q, scheduler, now)
  local run, key = string.match(scheduler, "^(.*):(%l+)$")
  local other, due = string.match(KEYS_OF_A_JOB[key] and run or scheduler, "^(.*):(%d+)$")
  due = tonumber(due)
  if due and due >= now and due < 2199023255552 and call("ZSCORE", q.base .. "repeat", other) then return other end
end

-- The same, seen from the other one: whether a scheduler's record stands where its run belongs.
local function holds_record(q, scheduler, due)
  local key = q.base .. iteration_id(scheduler, due)
  return redis.pcall("HEXISTS", key, "ic") == 1
end

-- An interval in ms as a record has it; nil where that is none, or nothing that ever comes.
local function interval_of(text)
  local every = setting(text)
  return every and every > 0 and every or nil
end

-- §3.16.2: when an interval is due next. Slots that were missed are skipped.
local function next_slot(now, every, offset, previous)
  local due = previous + every
  if due >= now then return due end
  local slot = math.floor(now / every) * every + offset
  return slot <= now and slot + every or slot
end

-- The options of one iteration. The client writes all that doesn't depend on the due time, which is known only here for intervals:
-- `head` ends before the closing brace, `repeat_rest` follows the count, and ids come as JSON text without quotes.
local function iteration_opts(due, now, count, parts)
  local delay = math.max(due - now, 0)
  local text = string.format(
    '%s"repeatJobKey":"%s","jobId":"repeat:%s:%.0f","delay":%.0f,"timestamp":%.0f,"repeat":{"count":%.0f%s}',
    parts.head, parts.id_text, parts.id_text, due, delay, now, count, parts.repeat_rest
  )
  if parts.is_pattern then text = text .. string.format(',"prevMillis":%.0f', due) end
  return text .. "}"
end

-- Stores and places one iteration. Returns its id and its delay.
local function add_iteration(q, scheduler, due, now, count, job, parts)
  local id = iteration_id(scheduler, due)
  job.opts = iteration_opts(due, now, count, parts)
  job.timestamp, job.delay, job.scheduler = now, math.max(due - now, 0), scheduler
  try_count_id(q)
  store(q, id, job)
  if place(q, id, job, now) == "delayed" then wake_delayed(q) else wake(q) end
  return id, job.delay
end

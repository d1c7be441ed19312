-- One queue as a script sees it, and the small steps that the scripts share. `§` refers to the wire specification.

local call = redis.call

-- A setting as a number: nil where there is none, or what nobody could count with (text, "nan", "inf"; T21), as if it weren't set.
local function setting(text)
  local number = tonumber(text or nil)
  if number and math.abs(number) < 9007199254740992 then return number end
end

-- What the queue's own keys must be (wire 1), of those that nearly every script touches.
local KINDS = {
  wait = "list", active = "list", paused = "list", delayed = "zset", prioritized = "zset", completed = "zset", failed = "zset",
  ["waiting-children"] = "zset", events = "stream", marker = "zset", stalled = "set", id = "string", pc = "string", meta = "hash",
}

-- A command that fails on every other type, for each type. What answers with a number or a text costs less than TYPE.
local PROBES = { list = "LLEN", zset = "ZCARD", set = "SCARD", hash = "HLEN", stream = "XLEN", string = "GET" }

-- What is wrong with a key, or nil.
local function wrong_kind(key, wanted)
  local reply = redis.pcall(PROBES[wanted], key)
  if type(reply) ~= "table" then return end
  local kind = redis.pcall("TYPE", key).ok
  if kind == nil or kind == wanted or kind == "none" then return key .. " can't be read: " .. reply.err end
  return key .. " holds a " .. kind .. " instead of a " .. wanted
end

-- Ends the script: "nothing was done" is what the client makes of it, so it is asked before anything is written.
local function refuse(problem)
  if problem then error({ err = "DAMAGED " .. problem }) end
end

-- What one of the queue's own keys holds that it can't, or nil. A script that met it in the middle would leave a job in no state at all.
-- `kinds`: of those that the script touches, if they are few.
local function damage_of(base, kinds)
  for suffix, wanted in pairs(kinds or KINDS) do
    local problem = wrong_kind(base .. suffix, wanted)
    if problem then return problem end
  end
end

-- Opens a queue by its base ("bull:emails:"). `meta` is read once: nothing in a script changes what it says.
local function open_queue(base, kinds)
  refuse(damage_of(base, kinds))
  local meta = call("HMGET", base .. "meta", "paused", "concurrency", "max", "duration", "opts.maxLenEvents")
  return {
    base = base,
    own = "toril:" .. base,
    metrics_points = 0,
    meta = base .. "meta",
    wait = base .. "wait",
    active = base .. "active",
    delayed = base .. "delayed",
    prioritized = base .. "prioritized",
    events = base .. "events",
    marker = base .. "marker",
    stalled = base .. "stalled",
    limiter = base .. "limiter",
    counter = base .. "pc",
    paused = meta[1] ~= false,
    concurrency = setting(meta[2]),
    max = setting(meta[3]),
    duration = setting(meta[4]),
    max_events = setting(meta[5]),
  }
end

-- §3.0 BLOCKED: whether nobody may claim now. Asked anew each time, since the length of `active` changes on the way.
local function is_blocked(q)
  if q.paused then return true end
  return q.concurrency ~= nil and call("LLEN", q.active) >= q.concurrency
end

-- Rings for "something may be claimable now". Once a script is enough: nobody answers before it ends.
local function ring(q)
  if not q.rang then
    q.rang = true
    call("ZADD", q.marker, 0, "0")
  end
end

-- §3.0 WAKE
local function wake(q)
  if not q.rang and not is_blocked(q) then ring(q) end
end

-- When the first delayed job is due, in ms; nil if there is none. One without a time that could come ("-inf") is none.
local function next_due(q)
  local first = call("ZRANGEBYSCORE", q.delayed, 0, 9007199254740991, "WITHSCORES", "LIMIT", 0, 1)
  if first[2] then return tonumber(first[2]) / 4096 end
end

-- §3.0 WAKE-DELAYED: tells sleepers until when they may sleep, paused or not.
local function wake_delayed(q)
  local due = next_due(q)
  if due then call("ZADD", q.marker, due, "1") end
end

-- Counts one more add: its automatic id; nil and what is wrong where the counter can't be counted on. Lua's own spelling of a number keeps
-- 14 digits only (T16).
local function try_count_id(q)
  local count = redis.pcall("INCR", q.base .. "id")
  if type(count) == "number" then return string.format("%.0f", count) end
  return nil, q.base .. "id holds no number that could be counted on"
end

local function count_id(q)
  local id, problem = try_count_id(q)
  refuse(problem)
  return id
end

-- The same, for a job that gets this id: one that nobody has. Where the server evicted the counter, or somebody took it away, old jobs
-- have the first numbers, maybe a million of them.
local function free_id(q)
  local id, step = count_id(q), 1
  while call("EXISTS", q.base .. id) == 1 do
    id, step = string.format("%.0f", tonumber(id) + step), step * 2
    call("SET", q.base .. "id", id)
  end
  return id
end

-- The same for `n` jobs; nil where somebody has one of these ids, or the counter can't be counted on: then each is looked for by itself.
local function free_ids(q, n)
  local text = call("GET", q.base .. "id") or "0"
  if #text > 15 or text ~= "0" and not string.match(text, "^[1-9]%d*$") then return nil end
  local count, ids, keys = tonumber(text), {}, {}
  for i = 1, n do
    ids[i] = string.format("%.0f", count + i)
    keys[i] = q.base .. ids[i]
  end
  if call("EXISTS", unpack(keys)) > 0 then return nil end
  call("SET", q.base .. "id", ids[n])
  return ids
end

-- §3.0 MAXEV
local function max_events(q)
  if not q.max_events or q.max_events < 0 then
    q.max_events = 10000
    call("HSET", q.meta, "opts.maxLenEvents", q.max_events)
  end
  return math.floor(q.max_events)
end

local function event(q, name, ...)
  call("XADD", q.events, "*", "event", name, ...)
end

-- An event that also trims the stream, which is done once a script.
local function trimming_event(q, name, ...)
  if q.trimmed then return event(q, name, ...) end
  q.trimmed = true
  call("XADD", q.events, "MAXLEN", "~", max_events(q), "*", "event", name, ...)
end

local function trim_events(q)
  if not q.trimmed then
    q.trimmed = true
    call("XTRIM", q.events, "MAXLEN", "~", max_events(q))
  end
end

-- §1.5: jobs that are due in the same millisecond keep their order, by a number below 4096.
local function add_delayed(q, id, due)
  local low, high = due * 4096, due * 4096 + 4095
  local last = call("ZREVRANGEBYSCORE", q.delayed, high, low, "WITHSCORES", "LIMIT", 0, 1)
  local score = low
  if last[2] then score = math.min(tonumber(last[2]) + 1, high) end
  call("ZADD", q.delayed, score, id)
end

-- §3.0 PRIO without the ring: behind all others of its priority.
local function add_prioritized(q, id, priority)
  local n = redis.pcall("INCR", q.counter)
  if type(n) ~= "number" then -- damaged: it begins anew, and those of this priority that wait already may come later
    call("DEL", q.counter)
    n = call("INCR", q.counter)
  end
  call("ZADD", q.prioritized, priority * 4294967296 + n % 4294967296, id)
end

-- §3.0 PRIO-FRONT: before all others of its priority.
local function add_prioritized_front(q, id, priority)
  call("ZADD", q.prioritized, priority * 4294967296, id)
end

-- A field of a job; nil where there is none, or no job.
local function field(key, name)
  local value = redis.pcall("HGET", key, name)
  return type(value) == "string" and value or nil
end

-- One more of what a job counts; text that somebody has left there counts as nothing.
local function count_up(key, name)
  local count = (tonumber(field(key, name)) or 0) + 1
  call("HSET", key, name, string.format("%.0f", count))
  return count
end

-- Stands in a list for ids that are taken out, until all of them are removed at once. No job has it: workers drop it like the marks of old versions.
local GONE = "0:gone"

-- Puts a job among those that may run: by its priority; without one behind the others, or `first` before them.
local function add_waiting(q, id, priority, first)
  if priority > 0 then
    add_prioritized(q, id, priority)
  else
    call(first and "RPUSH" or "LPUSH", q.wait, id)
  end
end

-- §3.0 PROMOTE-DUE. `blocked` is as it was when the surrounding operation began.
local function promote_due(q, now, blocked)
  local due = call("ZRANGEBYSCORE", q.delayed, 0, (now + 1) * 4096 - 1, "LIMIT", 0, 1000)
  if #due == 0 then return end
  call("ZREM", q.delayed, unpack(due))
  local plain = {}
  for _, id in ipairs(due) do
    local key = q.base .. id
    local values = redis.pcall("HMGET", key, "priority", "delay", "name") -- an error holds none of them
    local priority = tonumber(values[1]) or 0
    if priority > 0 then
      add_prioritized(q, id, priority)
    else
      plain[#plain + 1] = id
    end
    event(q, "waiting", "jobId", id, "prev", "delayed")
    if values[1] or values[2] or values[3] then call("HSET", key, "delay", "0") end
  end
  if #plain > 0 then call("LPUSH", q.wait, unpack(plain)) end
  if not blocked then ring(q) end
end

-- §11: notes about single jobs, "cancel:{id}" and "unknown:{id}", are rare. `noted` outlives them all, so that who ends many jobs asks once.
local NOTED_MS = 86400000

-- Notes something for `ms`, at most NOTED_MS.
local function note(q, what, id, value, ms)
  call("SET", q.own .. what .. ":" .. id, value, "PX", ms)
  call("SET", q.own .. "noted", "1", "PX", NOTED_MS)
  q.has_notes = true
end

local function has_notes(q)
  if q.has_notes == nil then q.has_notes = call("EXISTS", q.own .. "noted") == 1 end
  return q.has_notes
end

-- §11: what we have noted about a job with this id, which ends or begins a new life.
local function forget(q, id)
  call("DEL", q.own .. "unknown:" .. id, q.own .. "cancel:" .. id)
end

-- All keys of a job but its lock, behind those that are in `keys` already.
local function add_keys(keys, key)
  local n = #keys
  keys[n + 1], keys[n + 2], keys[n + 3] = key, key .. ":logs", key .. ":dependencies"
  keys[n + 4], keys[n + 5], keys[n + 6] = key .. ":processed", key .. ":failed", key .. ":unsuccessful"
  return keys
end

-- §3.15.4: who goes away keeps nobody out any more.
local function drop_deduplication(q, key, id)
  local deduplication = field(key, "deid")
  if deduplication and redis.pcall("GET", q.base .. "de:" .. deduplication) == id then
    call("DEL", q.base .. "de:" .. deduplication, q.base .. "dn:" .. deduplication)
  end
end

-- §3.0 DROP-KEYS
local function drop_keys(key)
  call("DEL", unpack(add_keys({}, key)))
end

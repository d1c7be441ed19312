-- include queue

-- How many entries one turn looks at for names with a free slot; about 0.65 us each (§9.3).
local WINDOW = 500
local CHUNK = 50

-- §3.0 RATE-TTL
local function rate_ttl(q, max)
  if not max or (tonumber(call("GET", q.limiter)) or 0) < max then return 0 end
  local ttl = call("PTTL", q.limiter)
  if ttl == 0 then call("DEL", q.limiter) end
  return math.max(ttl, 0)
end

-- What would stop a claim after its job was moved, where there is a limit: its key and what is wrong with that, or nil.
local function limit_obstacle(q)
  local kind = redis.pcall("TYPE", q.limiter)
  if kind.err then return q.limiter .. " can't be read: " .. kind.err end
  if kind.ok ~= "none" and kind.ok ~= "string" then return q.limiter .. " holds a " .. kind.ok .. " instead of a number" end
end

-- One job more in this span; how many there are. A counter that somebody has damaged begins anew, or every claimed job would be stuck.
local function count_in_limiter(q)
  local count = redis.pcall("INCR", q.limiter)
  if type(count) == "number" then return count end
  call("DEL", q.limiter)
  return call("INCR", q.limiter)
end

-- The next ids whatever their names are, up to `n`: moved to `active`.
local function take_any(q, n)
  local ids = call("RPOP", q.wait, n)
  if not ids then
    ids = {}
    local scored = call("ZPOPMIN", q.prioritized, n)
    for i = 1, #scored, 2 do
      ids[#ids + 1] = scored[i]
    end
  end
  if #ids > 0 then
    call("LPUSH", q.active, unpack(ids))
  else
    call("DEL", q.counter)
  end
  return ids
end

-- Reads on in one collection. `skipped` entries at its front are known to have full names, `taken` ones are still to be removed.
local function next_chunk(scan, taken)
  local from = scan.skipped + taken
  if scan.is_list then return call("LRANGE", scan.key, -from - CHUNK, -from - 1) end
  return call("ZRANGE", scan.key, from, from + CHUNK - 1)
end

-- Up to `n` ids whose names have a free slot: moved to `active`. Fewer at the end, or where `look.left` runs out. From a list they are
-- removed together, since LREM begins at an end of the list each time: behind 10,000 others, 50 jobs took 8 ms one by one.
local function take_named(q, scan, look, free, n)
  local taken, used = {}, {}
  while look.left > 0 and #taken < n do
    if not scan.chunk or scan.at > #scan.chunk then
      scan.chunk, scan.at = next_chunk(scan, #taken), 1
      if #scan.chunk == 0 then
        scan.ended = true
        break
      end
    end
    -- A list's oldest entry is its last, a sorted set's first one its first.
    local id = scan.chunk[scan.is_list and #scan.chunk - scan.at + 1 or scan.at]
    scan.at = scan.at + 1
    look.left = look.left - 1
    local name = redis.pcall("HGET", q.base .. id, "name")
    local slots = type(name) == "string" and free[name]
    if slots and slots <= (used[name] or 0) then
      scan.skipped = scan.skipped + 1
    else
      if slots then used[name] = (used[name] or 0) + 1 end
      taken[#taken + 1] = id
      if scan.is_list then call("LSET", scan.key, -scan.skipped - #taken, GONE) end
    end
  end
  if #taken > 0 then
    if scan.is_list then
      local is_near_head = 2 * scan.skipped > call("LLEN", scan.key)
      call("LREM", scan.key, is_near_head and #taken or -#taken, GONE)
    else
      call("ZREM", scan.key, unpack(taken))
    end
    call("LPUSH", q.active, unpack(taken))
  end
  return taken
end

-- What a job has that has never run, by its place in a row.
local PLACES = { name = 3, data = 4, opts = 5, timestamp = 6, delay = 7, priority = 8 }
local NAME = PLACES.name

-- A claimed job as the client is told of it: {id, token, name, data, opts, timestamp, delay, priority}, where false stands for what it hasn't,
-- and, if it has more, {field, value…}. The names of the six would be half of the answer. Besides what else it has, by the fields' names.
local function row_of(q, id, token)
  local listed = redis.pcall("HGETALL", q.base .. id) -- an error holds nothing
  local row, others, more = { id, token, false, false, false, false, false, false }, nil, nil
  for i = 1, #listed, 2 do
    local name, value = listed[i], listed[i + 1]
    local place = PLACES[name]
    if place then
      row[place] = value
    else
      others, more = others or {}, more or {}
      others[name] = value
      more[#more + 1], more[#more + 2] = name, value
    end
  end
  row[9] = more
  return row, others
end

-- §3.2 steps 7 to 9 for an id that is in `active` by now: its row, in which a first run has neither `ats` nor `processedOn`, and whether
-- it shall only fail (`defa`); nil where there is no job behind the id (T14, T19).
local function activate(q, id, token, request)
  local key = q.base .. id
  local row, others = row_of(q, id, token)
  if not row[NAME] or string.sub(id, 1, 2) == "0:" then
    call("LREM", q.active, 1, id)
    return nil
  end
  if token ~= "0" then call("SET", key .. ":lock", token, "PX", request.lock_ms) end
  event(q, "active", "jobId", id, "prev", "waiting")
  -- It has run and ended, and somebody has retried it: a wish to cancel the run of then, which Node leaves behind, isn't meant for this one.
  local started = "1"
  if others then
    if others.ats and not others.processedOn then forget(q, id) end
    started = tostring((tonumber(others.ats or nil) or 0) + 1)
    local more = row[9]
    local n = #more
    more[n + 1], more[n + 2], more[n + 3], more[n + 4] = "ats", started, "processedOn", q.now_text -- the later ones count
  end
  if request.worker_name ~= "" then
    call("HSET", key, "processedOn", q.now_text, "ats", started, "pb", request.worker_name)
  else
    call("HSET", key, "processedOn", q.now_text, "ats", started)
  end
  return row, others and others.defa
end

-- What a claim answers besides jobs; the client knows the numbers as ClaimState.
local SATISFIED, EMPTY, LIMITED, BLOCKED, ONLY_FULL_NAMES, LOOK_FURTHER, OBSTRUCTED = 0, 1, 2, 3, 4, 5, 6

local function name_is_full(free)
  for _, slots in pairs(free) do
    if slots <= 0 then return true end
  end
  return false
end

-- So many jobs of any name that none gets more of them than it has slots.
local function fewest_slots(free, n)
  for _, slots in pairs(free) do
    n = math.min(n, slots)
  end
  return n
end

-- How many of the wanted jobs the queue's concurrency allows.
local function room(q, wanted)
  return q.concurrency and math.min(wanted, math.ceil(q.concurrency - call("LLEN", q.active))) or wanted
end

-- How many ids without a job one turn drops, about, and how many of them it names.
local DROPPED, NAMED = 1000, 10

-- §3.2, up to `request.wanted` times. Returns rows, state, value, two positions, {how many ids without a
-- job were dropped, the first ones…}.
local function claim(q, request)
  local rows, dropped = {}, { 0 }
  local free, look = request.free, { left = WINDOW }
  local waiting = { key = q.wait, is_list = true, skipped = request.wait_position }
  local prioritized = { key = q.prioritized, skipped = request.prioritized_position }
  local state, value = SATISFIED, 0
  local max = q.max or request.limit_max
  promote_due(q, request.now, is_blocked(q))
  local limit = max or request.heeds_any_limit and 1
  local obstacle = limit and limit_obstacle(q)
  if obstacle then return rows, OBSTRUCTED, obstacle, waiting.skipped, prioritized.skipped, dropped end
  local taken, at = {}, 0 -- ids that are in `active`, and how many of them have been activated
  while #rows < request.wanted do
    if at == #taken then
      if dropped[1] >= DROPPED then break end
      local ttl = rate_ttl(q, limit)
      if ttl > 0 then
        state, value = LIMITED, ttl
        break
      end
      if is_blocked(q) then
        state = BLOCKED
        break
      end
      local n = limit and 1 or room(q, request.wanted - #rows)
      if not name_is_full(free) then
        taken = take_any(q, fewest_slots(free, n))
      else
        taken = take_named(q, waiting, look, free, n)
        if #taken == 0 then taken = take_named(q, prioritized, look, free, n) end
      end
      at = 0
      if #taken == 0 then
        state = EMPTY
        break
      end
    end
    at = at + 1
    local id = taken[at]
    local token = #rows == 0 and request.token or request.token .. ":" .. (#rows + 1)
    local row, fails = activate(q, id, token, request)
    if row then
      local name = row[NAME]
      if max and not fails then
        if count_in_limiter(q) == 1 then
          call("PEXPIRE", q.limiter, math.floor(math.abs(request.limit_ms or q.duration or 0)))
        end
      end
      if free[name] then free[name] = free[name] - 1 end
      rows[#rows + 1] = row
    elseif string.sub(id, 1, 2) ~= "0:" then -- those are marks of old versions
      dropped[1] = dropped[1] + 1
      if #dropped <= NAMED then dropped[#dropped + 1] = id end
    end
  end
  if #rows > 0 then ring(q) end -- §3.2 step 10: wakes the next sleeper, blocked or not
  if not name_is_full(free) then
    waiting.skipped, prioritized.skipped = 0, 0 -- nobody needs to be passed by any more
  end
  if state == EMPTY then
    if waiting.skipped + prioritized.skipped > 0 or look.left <= 0 then
      state = (waiting.ended and prioritized.ended) and ONLY_FULL_NAMES or LOOK_FURTHER
      wake(q) -- somebody else may have a slot for them
    else
      value = math.floor(next_due(q) or 0)
    end
  end
  return rows, state, value, waiting.skipped, prioritized.skipped, dropped
end

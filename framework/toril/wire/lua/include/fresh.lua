-- include store
-- include parents

-- What would stop a script half-way through writing a job to a queue: a key that holds what it can't. Asked before anything is changed.
-- Returns the key and what is wrong with it, or nil.
local function obstacle(base, job)
  local function wrong(suffix, wanted)
    local kind = redis.pcall("TYPE", base .. suffix)
    if kind.err then return kind.err end
    if kind.ok ~= "none" and kind.ok ~= wanted then return "holds a " .. kind.ok .. " instead of a " .. wanted end
    if wanted ~= "string" then return nil end
    local value = call("GET", base .. suffix)
    if value and not string.match(value, "^%-?%d+$") then return "holds no number" end
  end
  local needed = { { "id", "string" }, { "meta", "hash" }, { "events", "stream" }, { "marker", "zset" }, { "delayed", "zset" } }
  if tonumber(job.delay) > 0 then
    -- the delayed ones are needed in any case: sleepers are told of the first
  elseif tonumber(job.priority) > 0 then
    needed[#needed + 1] = { "prioritized", "zset" }
    needed[#needed + 1] = { "pc", "string" }
  else
    needed[#needed + 1] = { "wait", "list" }
  end
  needed[#needed + 1] = { "active", "list" } -- its length, where the queue's concurrency is bounded
  for _, pair in ipairs(needed) do
    local reason = wrong(pair[1], pair[2])
    if reason then return base .. pair[1] .. " " .. reason end
  end
end

-- Adds a job with an id that nobody has: where somebody took the counter away, old jobs have the first numbers.
local function add_fresh(q, job, now)
  max_events(q)
  local id
  repeat
    id = tostring(call("INCR", q.base .. "id"))
  until call("EXISTS", q.base .. id) == 0
  store(q, id, job)
  if place(q, id, job, now) == "delayed" then wake_delayed(q) else wake(q) end
  return id
end

-- include store
-- include parents

-- What an add writes: key, its type, and one write of each kind that it gets (`nil` where it is only read).
local function keys_of_add(job)
  local written = {
    { "id", "string", { "INCR" } },
    { "meta", "hash", { "HSET", "opts.maxLenEvents", "10000" } },
    { "events", "stream", { "XADD", "*", "event", "added" } },
    { "marker", "zset", { "ZADD", "0", "0" } },
    { "delayed", "zset", tonumber(job.delay) > 0 and { "ZADD", "0", "0" } or nil }, -- sleepers are told of the first in any case
    { "active", "list" }, -- its length, where the queue's concurrency is bounded
  }
  if tonumber(job.delay) > 0 then return written end
  if tonumber(job.priority) > 0 then
    written[#written + 1] = { "prioritized", "zset", { "ZADD", "0", "0" } }
    written[#written + 1] = { "pc", "string", { "INCR" } }
  else
    written[#written + 1] = { "wait", "list", { job.lifo and "RPUSH" or "LPUSH", "0" } }
  end
  return written
end

-- Whether the caller's user may do this write to a key.
local function may_write(key, write)
  return redis.acl_check_cmd(write[1], key, unpack(write, 2))
end

-- What would stop a script half-way through adding a job to a queue: a key that holds what it can't, or that the user may not write.
-- Returns the key and what is wrong with it, or nil. Asked before anything is changed.
local function obstacle(base, job)
  local problem = damage_of(base)
  if problem then return problem end
  for _, one in ipairs(keys_of_add(job)) do
    local key, wanted, write = base .. one[1], one[2], one[3]
    problem = wrong_kind(key, wanted)
    if problem then return problem end
    if write and not may_write(key, write) then
      return key .. " must not be written by the worker's user (its rights lack " .. write[1] .. ")"
    end
    local number = wanted == "string" and call("GET", key)
    if number and (#number > 18 or number ~= "0" and not string.match(number, "^%-?[1-9]%d*$")) then
      return key .. " holds no number that could be counted on"
    end
  end
  if not may_write(base .. "1", { "HSET", "name", "n" }) then
    return base .. "1 must not be written by the worker's user (its rights lack HSET)"
  end
end

-- Adds a job with an id that nobody has.
local function add_fresh(q, job, now)
  max_events(q)
  local id = free_id(q)
  store(q, id, job)
  if place(q, id, job, now) == "delayed" then wake_delayed(q) else wake(q) end
  return id
end

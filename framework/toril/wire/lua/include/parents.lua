-- include queue

-- Splits a job's full key ("bull:emails:12") into its queue's base and its id. After our own prefix comes a queue's name, which
-- holds no colon; behind another prefix only the id can be told, from the right, and only if it holds none (T20).
local function split_key(q, key)
  local prefix = string.match(q.base, "^(.*:)[^:]*:$")
  if string.sub(key, 1, #prefix) == prefix then
    local name, id = string.match(key, "^([^:]*:)(.+)$", #prefix + 1)
    if name then return prefix .. name, id end
  end
  return string.match(key, "^(.*:)([^:]*)$")
end

-- A queue by its base: the one at hand if it is the same, so that what it remembers stays true.
local function queue_of(q, base)
  if base == q.base then return q end
  q.others = q.others or {}
  q.others[base] = q.others[base] or open_queue(base)
  return q.others[base]
end

-- A parent's base and id. The child's `parent` JSON tells them; the key alone is enough only if the JSON can't be read.
local function place_of_parent(q, parent_key, parent_json)
  local ok, parent = pcall(cjson.decode, parent_json or "")
  if ok and type(parent) == "table" and type(parent.queueKey) == "string" and parent.id then
    local base, id = parent.queueKey .. ":", tostring(parent.id)
    if base .. id == parent_key then return base, id end
  end
  return split_key(q, parent_key)
end

local function locate_parent(q, parent_key, parent_json)
  local base, id = place_of_parent(q, parent_key, parent_json)
  return queue_of(q, base), id
end

local PARENT_KINDS = { [""] = "hash", [":dependencies"] = "set", [":processed"] = "hash", [":failed"] = "hash", [":unsuccessful"] = "zset" }

-- What would stop a script in the middle of telling a parent of its child: a key and what is wrong with it, or nil.
local function parent_obstacle(q, parent_key, parent_json)
  q.sound = q.sound or {} -- looked at once: no script changes what type a key is of
  local place = parent_key .. (parent_json or "")
  if q.sound[place] then return end
  for suffix, wanted in pairs(PARENT_KINDS) do
    local problem = wrong_kind(parent_key .. suffix, wanted)
    if problem then return problem end
  end
  local base = place_of_parent(q, parent_key, parent_json)
  local problem
  if not base then -- nobody would be told, unless the child stands in its list
    problem = call("EXISTS", parent_key .. ":dependencies") == 1 and parent_key .. " is no key of a job" or nil
  elseif base ~= q.base and not (q.others and q.others[base]) then -- those have been looked at
    problem = damage_of(base)
  end
  q.sound[place] = not problem
  return problem
end

-- §3.6 TO-WAIT: a released parent goes to wait, by its own delay and priority.
local function parent_to_wait(pq, id, now)
  local values = call("HMGET", pq.base .. id, "delay", "priority")
  local delay, priority = tonumber(values[1]) or 0, tonumber(values[2]) or 0
  if delay > 0 then
    call("ZADD", pq.delayed, (now + delay) * 4096, id)
    event(pq, "delayed", "jobId", id, "delay", now + delay)
    wake_delayed(pq)
    return
  end
  add_waiting(pq, id, priority, true)
  wake(pq)
  event(pq, "waiting", "jobId", id, "prev", "waiting-children")
end

-- §3.6 RELEASE
local function release(pq, id, now)
  if call("EXISTS", pq.base .. id) == 1 and call("ZREM", pq.base .. "waiting-children", id) == 1 then
    parent_to_wait(pq, id, now)
  end
end

-- §3.6 CHILD-DONE
local function child_done(q, child_key, parent_key, parent_json, value, now)
  if call("SREM", parent_key .. ":dependencies", child_key) == 0 then return end
  call("HSET", parent_key .. ":processed", child_key, value)
  if call("SCARD", parent_key .. ":dependencies") == 0 then
    local pq, id = locate_parent(q, parent_key, parent_json)
    release(pq, id, now)
  end
end

-- §3.6, a child whose flag says that its failure fails the parent.
local function fail_parent(pq, parent_key, id, child_key, now)
  call("ZADD", parent_key .. ":unsuccessful", now, child_key)
  local freed = call("ZREM", pq.base .. "waiting-children", id) == 1
  if not freed and call("ZREM", pq.delayed, id) == 1 then
    call("HSET", parent_key, "delay", 0)
    freed = true
  end
  if not freed and call("ZSCORE", pq.base .. "failed", id) then return end
  call("HSET", parent_key, "defa", "child " .. child_key .. " failed")
  if freed then parent_to_wait(pq, id, now) end
end

-- §3.6 CHILD-FAILED. The flags are those in the child's `parent` JSON.
local function child_failed(q, child_key, parent_key, parent_json, reason, now)
  local ok, flags = pcall(cjson.decode, parent_json or "")
  if not ok or type(flags) ~= "table" then return end
  if not (flags.fpof or flags.cpof or flags.idof or flags.rdof) then return end
  if call("SREM", parent_key .. ":dependencies", child_key) == 0 then return end
  local pq, id = locate_parent(q, parent_key, parent_json)
  if call("EXISTS", parent_key) == 0 then -- the server has evicted it: nothing of it is written anew
    if flags.fpof and call("ZREM", pq.base .. "waiting-children", id) == 0 then call("ZREM", pq.delayed, id) end
    return
  end
  if flags.fpof then return fail_parent(pq, parent_key, id, child_key, now) end
  if flags.cpof then
    call("HSET", parent_key .. ":failed", child_key, reason)
    return release(pq, id, now)
  end
  if call("SCARD", parent_key .. ":dependencies") == 0 then release(pq, id, now) end
  if flags.idof then call("HSET", parent_key .. ":failed", child_key, reason) end
end

-- Takes a job out of those that its parent waits for. If it was the last one, and the parent waited: the parent's queue and id.
local function unlink(q, key)
  local parent = redis.pcall("HMGET", key, "parentKey", "parent")
  local parent_key = parent[1]
  if not parent_key or call("EXISTS", parent_key) == 0 then return end
  refuse(parent_obstacle(q, parent_key, parent[2]))
  if call("SREM", parent_key .. ":dependencies", key) == 0 then return end
  if call("SCARD", parent_key .. ":dependencies") > 0 then return end
  local pq, id = locate_parent(q, parent_key, parent[2])
  if call("ZREM", pq.base .. "waiting-children", id) == 1 then return pq, id, parent_key end
end

-- §3.5.2, soft: a job that goes away is no longer waited for.
local function drop_parent_link(q, key)
  local pq, id = unlink(q, key)
  if pq then
    call("RPUSH", pq.wait, id)
    wake(pq)
    event(pq, "waiting", "jobId", id, "prev", "waiting-children")
  end
end

-- What would stop that half-way, from the job upwards: a key and what is wrong with it, or nil.
local function hard_obstacle(q, key)
  local seen = {}
  while not seen[key] do
    seen[key] = true
    local parent = redis.pcall("HMGET", key, "parentKey", "parent")
    local parent_key = parent[1]
    if not parent_key or call("EXISTS", parent_key) == 0 then return end
    local problem = parent_obstacle(q, parent_key, parent[2])
    if problem then return problem end
    -- Only a parent of this queue that waits for this job and nobody else would go as well.
    local base, id = place_of_parent(q, parent_key, parent[2])
    local children = parent_key .. ":dependencies"
    if base ~= q.base or call("SCARD", children) ~= 1 or call("SISMEMBER", children, key) == 0 then return end
    if not call("ZSCORE", q.base .. "waiting-children", id) then return end
    key = parent_key
  end
end

-- §3.5.2, hard: a parent of the same queue goes away with its last child, and so on upwards; any other is released, without a word.
local function drop_parent_link_hard(q, key)
  refuse(hard_obstacle(q, key))
  local pq, id, parent_key = unlink(q, key)
  while pq do
    if pq ~= q then
      call("RPUSH", pq.wait, id)
      wake(pq)
      return
    end
    local gone = parent_key
    pq, id, parent_key = unlink(q, gone) -- its own link first: afterwards nobody knows whose child it was
    drop_keys(gone)
  end
end

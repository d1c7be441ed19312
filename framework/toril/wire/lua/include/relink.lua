-- include parents

-- What would stop that half-way: a key of the parent and what is wrong with it, or nil.
local function relink_obstacle(q, key)
  local parent_key = field(key, "parentKey")
  return parent_key and parent_obstacle(q, parent_key, field(key, "parent"))
end

-- §3.10: a finished job that runs again is waited for again, if its parent still lives and knew of its end.
local function relink(key, target)
  local parent_key = field(key, "parentKey")
  if not parent_key or call("EXISTS", parent_key) == 0 then return end
  local known
  if target == "completed" then
    known = call("HDEL", parent_key .. ":processed", key)
  else
    known = call("ZREM", parent_key .. ":unsuccessful", key) + call("HDEL", parent_key .. ":failed", key)
  end
  if known > 0 then call("SADD", parent_key .. ":dependencies", key) end
end

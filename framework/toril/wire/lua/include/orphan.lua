-- Jobs that are in no collection, so that nobody will ever run or find them (wire 3.12, removeOrphanedJobs).

local function is_in_a_collection(q, id)
  for _, state in ipairs({ "completed", "failed", "delayed", "prioritized", "waiting-children" }) do
    if call("ZSCORE", q.base .. state, id) then return true end
  end
  for _, state in ipairs({ "active", "wait", "paused" }) do
    if call("LPOS", q.base .. state, id) then return true end
  end
  return false
end

-- The id of a job of ours: "7", "order-7", "a:b:c", "repeat:scheduler:ms". Behind "emails:" other queues' keys may lie, whose prefix is
-- our whole base; and a job's own keys ("7:logs") are no jobs.
local function is_job(q, id)
  local key = q.base .. id
  if call("TYPE", key).ok ~= "hash" then return false end
  local fields = call("HMGET", key, "name", "data", "opts", "timestamp", "rjk")
  if not (fields[1] and fields[2] and fields[3] and fields[4]) then return false end
  if fields[5] and string.sub(id, 1, 7) == "repeat:" then return true end
  local _, colons = string.gsub(id, ":", "")
  if colons == 0 then return true end
  if colons ~= 2 then return false end
  local other = q.base .. string.match(id, "^(.*:)[^:]*$")
  return call("EXISTS", other .. "meta", other .. "id") == 0
end

local function is_orphan(q, id)
  return is_job(q, id) and not is_in_a_collection(q, id) and call("EXISTS", q.base .. id .. ":lock") == 0
end

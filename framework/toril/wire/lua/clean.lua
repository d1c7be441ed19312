#!lua flags=allow-oom
--[[ clean
Removes up to `limit` jobs of one state that are older than a moment (wire 3.12). What a scheduler has waiting and jobs under a lock stay.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  state's key name
ARGV[2]  the moment, ms
ARGV[3]  how many at most
Returns  the ids that were removed
]]
-- include remove_hard

local q, state, until_ms, limit = open_queue(KEYS[1]), ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local source = q.base .. state
local is_list = state == "wait" or state == "paused" or state == "active"
local is_finished = state == "completed" or state == "failed" or state == "waiting-children"

-- Candidates: the oldest ones; of a list in its order, as BullMQ takes them.
local function candidates()
  if is_finished then return call("ZRANGEBYSCORE", source, "-inf", until_ms, "LIMIT", 0, limit) end
  return call(is_list and "LRANGE" or "ZRANGE", source, is_list and -limit or 0, is_list and -1 or limit - 1)
end

-- When a job that hasn't ended counts as made: the first of these fields that it has.
local AGE_FIELDS = is_list and { "finishedOn", "processedOn", "timestamp" }
  or state == "delayed" and { "processedOn", "timestamp" }
  or { "timestamp" }
local function is_old(key)
  if is_finished then return true end
  for _, name in ipairs(AGE_FIELDS) do
    local at = tonumber(field(key, name))
    if at then return at <= until_ms end
  end
  return true
end

local removed = {}
for _, id in ipairs(candidates()) do
  local key = q.base .. id
  local is_pending = not is_finished and is_pending_iteration(q, id)
  local is_locked = state == "active" and call("EXISTS", key .. ":lock") == 1
  if not is_pending and not is_locked and is_old(key) then
    remove_hard(q, id)
    call(is_list and "LREM" or "ZREM", source, unpack(is_list and { 0, id } or { id }))
    removed[#removed + 1] = id
  end
end
event(q, "cleaned", "count", #removed)
return removed

#!lua flags=allow-oom
--[[ clean
Looks at `count` jobs of one state and removes up to `most` of those that are older than a moment (wire 3.12). What a scheduler has waiting and jobs under a
lock stay, and what something damaged refuses.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  state's key name
ARGV[2]  the moment, ms
ARGV[3]  how many to remove at most
ARGV[4]  how many to look at
ARGV[5]  how many to pass by: the oldest ones, which earlier calls have left
Returns  {the ids that were removed, how many there are to pass by from now on, or -1 at its end, ids that are left since something is damaged,
         each followed by what}
]]
-- include remove_hard
-- include leave

local q, state, until_ms = open_queue(KEYS[1]), ARGV[1], tonumber(ARGV[2])
local most, count, passed = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local source = q.base .. state
local is_list = state == "wait" or state == "paused" or state == "active"
local is_finished = state == "completed" or state == "failed" or state == "waiting-children"
if not is_finished then refuse(wrong_kind(q.base .. "repeat", "zset")) end

-- Candidates: the oldest ones; of a list in its order, as BullMQ takes them.
local function candidates()
  if is_finished then return call("ZRANGEBYSCORE", source, "-inf", until_ms, "LIMIT", passed, count) end
  if is_list then return call("LRANGE", source, -passed - count, -passed - 1) end
  return call("ZRANGE", source, passed, passed + count - 1)
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

local function is_spared(id)
  local key = q.base .. id
  if not is_finished and is_pending_iteration(q, id) then return true end
  if state == "active" and call("EXISTS", key .. ":lock") == 1 then return true end
  return not is_old(key)
end

local ids, removed = candidates(), {}

-- Which of them go: the oldest ones. Those behind the last of them are left to the next call: something damaged may refuse one of these.
local goes, chosen, looked = {}, 0, 0
while looked < #ids and chosen < most do
  looked = looked + 1
  local at = is_list and #ids + 1 - looked or looked
  if not is_spared(ids[at]) then
    goes[at] = true
    chosen = chosen + 1
  end
end

local function remove_some()
  for at, id in ipairs(ids) do
    if goes[at] and done_or_left(id, remove_hard, q, id) then
      removed[#removed + 1] = id
      -- Looking each up in a long list would take too long: there they get the same name, and go together.
      if is_list then call("LSET", source, at - 1 - #ids - passed, GONE) else call("ZREM", source, id) end
    end
  end
end

local ok, problem = pcall(remove_some)
if is_list and #removed > 0 then call("LREM", source, -#removed, GONE) end
if not ok then error(problem) end
if #removed > 0 or passed == 0 then event(q, "cleaned", "count", #removed) end
return { removed, looked == #ids and #ids < count and -1 or passed + looked - #removed, left }

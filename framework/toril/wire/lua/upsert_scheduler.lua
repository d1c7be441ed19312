#!lua
--[[ upsert_scheduler
Makes a job scheduler, or gives it another rule and template, and puts its next iteration in the queue (wire 3.16.2).

KEYS[1]   base of the queue's keys
KEYS[2]   base of our own keys
ARGV[1]   now, ms
ARGV[2]   scheduler's id
ARGV[3]   interval, ms; 0 for a pattern
ARGV[4]   the pattern's next time, ms; 0 for an interval
ARGV[5]   start date, ms, or 0
ARGV[6]   offset within the interval, ms, or ""
ARGV[7]   name of the jobs
ARGV[8]   their data, JSON
ARGV[9]   their priority
ARGV[10]  head of their options, JSON up to before the first of ours
ARGV[11]  id as JSON text, without quotes
ARGV[12]  what follows the count in `repeat`
ARGV[13]  LIFO: 1 or 0
ARGV[14]  pairs for the record: field, value
Returns   {id of the iteration, its delay in ms}, or -10 or -11 if the next slots are taken, -15 if its record would have the name of
          another scheduler's run, -16 if a job that runs or has ended stands at the pattern's next time and an iteration is pending:
          nothing was done, and a later time may be free
]]
-- include schedule

local now, scheduler, every = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local q = open_queue(KEYS[1])
local record_key, all = q.base .. "repeat:" .. scheduler, q.base .. "repeat"
local start_date, given_offset = tonumber(ARGV[5]), tonumber(ARGV[6])
local previous = tonumber(call("ZSCORE", all, scheduler) or nil)
-- One that is there already, running or paused, was there before the other one, which goes on behind that time.
local is_new = not previous and redis.pcall("HEXISTS", KEYS[2] .. "paused-schedulers", scheduler) ~= 1
if is_new and namesake(q, scheduler, now) or call("HEXISTS", record_key, "rjk") == 1 then return -15 end
max_events(q)

local kept = call("HMGET", record_key, "ic", "every", "offset")
local is_same_interval = every > 0 and interval_of(kept[2]) == every

-- Where the pending iteration stands, and how it is taken out of there; nil where there is none: one that runs or has ended stays.
local function find_pending()
  local id = previous and iteration_id(scheduler, previous)
  if not id or call("EXISTS", q.base .. id) == 0 then return end
  if call("ZSCORE", q.delayed, id) then return id, "ZREM", q.delayed, id end
  if call("ZSCORE", q.prioritized, id) then return id, "ZREM", q.prioritized, id end
  if call("LPOS", q.wait, id) then return id, "LREM", q.wait, 1, id end
end

-- BullMQ would write the new iteration over that job, which would be active, say, and delayed.
if every == 0 and tonumber(ARGV[4]) ~= previous and call("EXISTS", q.base .. iteration_id(scheduler, tonumber(ARGV[4]))) == 1 then
  return find_pending() and -16 or -10
end

-- The pending iteration makes way. Whether there was one.
local function replace_pending()
  local id, command, key, first, second = find_pending()
  if not id then return false end
  if second then call(command, key, first, second) else call(command, key, first) end
  drop_keys(q.base .. id)
  return true
end

local replaced = replace_pending()
local due, offset = tonumber(ARGV[4]), given_offset or (replaced or is_same_interval) and setting(kept[3]) or nil
if every > 0 then
  if replaced and is_same_interval then
    due = previous
  elseif previous and is_same_interval then
    due = next_slot(now, every, offset or 0, previous)
  elseif start_date > 0 then
    due = math.max(start_date, now)
  elseif given_offset and given_offset > 0 then
    due = math.floor(now / every) * every + given_offset
    if due <= now then due = due + every end
  else
    due = now
  end
  if not offset then offset = due - math.floor(due / every) * every end
end

local steps = 0
while call("EXISTS", q.base .. iteration_id(scheduler, due)) == 1 do
  if every == 0 then return -10 end
  steps = steps + 1
  if steps > 32 then return -11 end
  due = due + every
end

call("ZADD", all, due, scheduler)
call("DEL", record_key)
call("HSET", record_key, "ic", setting(kept[1]) or 1, "offset", offset or 0, unpack(ARGV, 14))
local id, delay = add_iteration(q, scheduler, due, now, 1, {
  name = ARGV[7], data = ARGV[8], priority = tonumber(ARGV[9]), lifo = ARGV[13] == "1",
}, { head = ARGV[10], id_text = ARGV[11], repeat_rest = ARGV[12], is_pattern = every == 0 })
return { id, delay }

#!lua flags=allow-oom
--[[ next_iteration
Puts a scheduler's next iteration in the queue, once, on behalf of the worker that has claimed the current one (wire 3.16.3).

KEYS[1]   base of the queue's keys
KEYS[2]   base of our own keys
ARGV[1]   now, ms
ARGV[2]   scheduler's id
ARGV[3]   id of the claimed iteration
ARGV[4]   the pattern's next time, ms; for an interval, below 0, the time that counts if the record's `every` can't be read; or 0
ARGV[5]   count of the next iteration
ARGV[6]   priority of the jobs
ARGV[7]   head of their options, JSON up to before the first of ours
ARGV[8]   scheduler's id as JSON text, without quotes
ARGV[9]   what follows the count in `repeat`
ARGV[10]  LIFO: 1 or 0
Returns   id of the next iteration, or "" if it isn't for this job to make one, or 1: at the pattern's next time, or the next
          32 of an interval, there can be none
]]
-- include schedule

local now, scheduler, producer = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local q = open_queue(KEYS[1])
local all, record_key = q.base .. "repeat", q.base .. "repeat:" .. scheduler
local current = tonumber(call("ZSCORE", all, scheduler) or nil)
-- A retry, or a run after a crash, isn't the current iteration any more: its next one exists.
if not current or producer ~= iteration_id(scheduler, current) then return "" end
local record = call("HMGET", record_key, "name", "data", "every", "offset")
local every, told = interval_of(record[3]), tonumber(ARGV[4])
local due = math.abs(told)
if told < 0 and not record[3] then return "" end -- somebody took the record away
if every then due = next_slot(now, every, setting(record[4]) or 0, current) end
if due <= 0 then return "" end
-- Where the record of a scheduler like "x:1700000000000" stands, which somebody else has made, this one has no run, and goes on behind it.
local taken = 0
while holds_record(q, scheduler, due) do
  taken = taken + 1
  if not every or taken > 32 then return 1 end
  due = due + every
end
local id = iteration_id(scheduler, due)
if call("EXISTS", q.base .. id) == 1 then
  trimming_event(q, "duplicated", "jobId", id)
  return id
end
call("ZADD", all, due, scheduler)
count_up(record_key, "ic")
return (add_iteration(q, scheduler, due, now, tonumber(ARGV[5]), {
  name = record[1] or "__default__", data = record[2] or "{}", priority = tonumber(ARGV[6]), lifo = ARGV[10] == "1",
}, { head = ARGV[7], id_text = ARGV[8], repeat_rest = ARGV[9], is_pattern = told > 0 }))

#!lua flags=allow-oom
--[[ sweep_stalled
Puts back jobs whose worker is gone (wire 3.9): those that were active at the last sweep, not extended since, and hold no lock.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  now, ms
ARGV[2]  interval between sweeps, ms
ARGV[3]  how often a job may stall before it is failed
Returns  {ms to wait, since another worker swept lately, or 0; the ids that were put back; those of cancelled jobs, which stay active
         until `end_cancelled` or the next sweep; those without a job, which were dropped}
]]
-- include queue

local now, interval, max_stalled = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local q = open_queue(KEYS[1])
local check = q.base .. "stalled-check"

local ttl = call("PTTL", check)
if ttl == -1 then ttl = interval end -- somebody wrote it without a TTL: nobody will ever sweep, but nobody shall spin either
if ttl ~= -2 then return { math.max(ttl, 1), {}, {}, {} } end
call("SET", check, ARGV[1], "PX", interval)
trim_events(q)

-- A job scheduler's iteration is never given up: that would end its schedule.
local function is_scheduled(key)
  local scheduler = field(key, "rjk")
  return scheduler
    and (call("EXISTS", q.base .. "repeat:" .. scheduler) == 1 or call("ZSCORE", q.base .. "repeat", scheduler) ~= false)
end

local recovered, cancelled, dropped = {}, {}, {}
local suspects = call("SMEMBERS", q.stalled)
if #suspects > 0 then call("DEL", q.stalled) end
for _, id in ipairs(suspects) do
  local key = q.base .. id
  if call("EXISTS", key .. ":lock") == 1 then
    -- its worker lives
  elseif call("EXISTS", q.own .. "cancel:" .. id) == 1 and call("EXISTS", key) == 1 and call("LPOS", q.active, id) then
    cancelled[#cancelled + 1] = id -- its worker died before it could obey
  elseif call("LREM", q.active, 1, id) == 0 then
    -- it has ended
  elseif not field(key, "name") then
    if string.sub(id, 1, 2) ~= "0:" then dropped[#dropped + 1] = id end -- those are marks of old versions
  else
    local count = count_up(key, "stc")
    if count > max_stalled and not is_scheduled(key) then
      call("HSET", key, "defa", "job stalled more than allowable limit")
    end
    call("RPUSH", q.wait, id)
    wake(q)
    event(q, "waiting", "jobId", id, "prev", "active")
    event(q, "stalled", "jobId", id)
    recovered[#recovered + 1] = id
  end
end

local active = call("LRANGE", q.active, 0, -1)
for first = 1, #active, 1000 do
  call("SADD", q.stalled, unpack(active, first, math.min(first + 999, #active)))
end
return { 0, recovered, cancelled, dropped }

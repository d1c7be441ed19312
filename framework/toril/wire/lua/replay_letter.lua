#!lua
--[[ replay_letter
Puts the job that a dead letter tells of back into its queue, and takes the letter away (wire 11).

KEYS[1]   base of the keys of the dead letters' queue
KEYS[2]   base of our own keys there
ARGV[1]   id of the dead letter
ARGV[2]   now, ms
ARGV[3]   base of the keys of the queue that the job goes back to
ARGV[4]   the job's name
ARGV[5]   data
ARGV[6]   opts
ARGV[7]   priority
ARGV[8]   lifo: 1 or 0
Returns   the new job's id (also if the letter was replayed before), or -1 no such letter, -6 a worker is at it,
          -12 no such queue, {-13, what keeps that queue from taking it}
]]
-- include fresh
-- include take_out

local q, id, now = open_queue(KEYS[1]), ARGV[1], tonumber(ARGV[2])
local base = ARGV[3]
local done = q.own .. "replayed:" .. id
if call("EXISTS", q.base .. id) == 0 then return call("GET", done) or -1 end
if call("EXISTS", q.base .. id .. ":lock") == 1 then return -6 end
if call("EXISTS", base .. "meta") == 0 then return -12 end

local job = { name = ARGV[4], data = ARGV[5], opts = ARGV[6], timestamp = now, delay = 0, priority = tonumber(ARGV[7]), lifo = ARGV[8] == "1" }
local problem = obstacle(base, job)
if problem then return { -13, problem } end
local new_id = add_fresh(queue_of(q, base), job, now)

local state = take_out(q, id)
drop_keys(q.base .. id)
trimming_event(q, "removed", "jobId", id, "prev", state)
call("SET", done, new_id, "PX", 86400000)
return new_id

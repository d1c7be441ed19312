#!lua flags=allow-oom
--[[ turn
First finishes k jobs, then claims up to n (wire 9.4). The answer is kept, so that a turn whose reply was lost can be sent
again: the same sequence number gets the same answer and nothing is done twice.

KEYS[1]   base of the queue's keys
KEYS[2]   base of our own keys
ARGV[1]   now, ms
ARGV[2]   token of the first claimed job's lock; the others get it with ":2", ":3"…
ARGV[3]   lock duration, ms
ARGV[4]   worker and lane under which the answer is kept; "": it isn't
ARGV[5]   sequence number of the turn in its lane
ARGV[6]   how many jobs to claim, n
ARGV[7]   worker's name, or ""
ARGV[8]   worker's own rate limit: jobs, or 0; -1: it has none, but claims nothing while there is any
ARGV[9]   and the ms in which they may start
ARGV[10]  from which position on to look for names with a free slot: in the waiting,
ARGV[11]  and in the prioritized jobs
ARGV[12]  for how many minutes finished jobs are counted, or 0
ARGV[13]  number of capped names c; then c pairs: name, free slots; then k times seven: kind, id, token and four values. Seven of
          the kind "l" are no ending but the dead letter of the one that follows: base of its queue, name, data, opts, delay, priority
Returns   {codes, state, value (of OBSTRUCTED the key and what is wrong with it), position, position, {row…}, {place of a code from 0, what
          else is known of it…}, {how many ids without a job were dropped, the first ones…}}, or -1 if a later turn was answered already.
          A row is {id, token, name, data, opts, timestamp, delay, priority, {another field, value…}}; without others it is a first run
]]
-- include finish
-- include claim

local now, token, lock_ms = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local lane, sequence, own = ARGV[4], tonumber(ARGV[5]), KEYS[2]
local q = open_queue(KEYS[1])
q.metrics_points = tonumber(ARGV[12])
q.now_text = ARGV[1] -- the server would write the number out anew wherever it is used
local receipt = own .. "receipt:" .. lane

-- The stored answer once more: of the claimed jobs those that are still ours, locked anew and read anew.
local function answer_again(answer)
  local rows = {}
  for _, claimed in ipairs(answer[6]) do
    local id, held = claimed[1], claimed[2]
    local key = q.base .. id
    if call("GET", key .. ":lock") == held then
      local row = row_of(q, id, held)
      if row[NAME] then
        call("SET", key .. ":lock", held, "PX", lock_ms)
        call("SREM", q.stalled, id)
        rows[#rows + 1] = row
      end
    end
  end
  answer[6] = rows
  return answer
end

if lane ~= "" then
  local kept = call("HMGET", receipt, "seq", "answer")
  local last = tonumber(kept[1]) or 0
  if last > sequence then return -1 end
  if last == sequence then
    call("PEXPIRE", receipt, 2 * lock_ms)
    return answer_again(cmsgpack.unpack(kept[2]))
  end
end

local names = tonumber(ARGV[13])
local free = {}
for i = 14, 13 + 2 * names, 2 do
  free[ARGV[i]] = tonumber(ARGV[i + 1])
end

local codes, details, finished = {}, {}, false

-- All endings, one after the other.
local function end_all()
  local letter
  for i = 14 + 2 * names, #ARGV, 7 do
    local kind, id, held, a, b, c, d = unpack(ARGV, i, i + 6)
    if kind == "l" then
      letter = { base = id, name = held, data = a, opts = b, timestamp = now, delay = tonumber(c), priority = tonumber(d) }
    else
      local code, detail
      if kind == "c" then
        code, detail = finish(q, now, id, held, "completed", a, nil, c)
      elseif kind == "f" then
        code, detail = finish(q, now, id, held, "failed", a, b, c, tonumber(d), letter)
      elseif kind == "r" then
        code, detail = retry_now(q, now, id, held, a, b, c == "1", d)
      elseif kind == "d" or kind == "o" then
        code, detail = delay_job(q, now, id, held, tonumber(c), a, b, d)
      elseif kind == "m" then
        code, detail = wait_for_children(q, now, id, held, d)
      elseif kind == "w" then
        code, detail = put_back(q, now, id, held, tonumber(a), d)
      else
        code, detail = put_off_unknown(q, now, id, held, a, b, c, d, letter)
      end
      if code == ENDED_CANCELLED or code == UNKNOWN_NAME_FAILED or code == 0 and (kind == "c" or kind == "f") then finished = true end
      codes[#codes + 1] = code
      if detail then
        details[#details + 1] = #codes - 1
        details[#details + 1] = detail
      end
      letter = nil
    end
  end
end

if #ARGV > 13 + 2 * names then
  local completed, locked = {}, {}
  for i = 14 + 2 * names, #ARGV, 7 do
    local kind, id = ARGV[i], ARGV[i + 1]
    if kind == "c" then completed[#completed + 1] = id end
    if kind ~= "l" then locked[#locked + 1] = id end
  end
  read_ahead(q, completed, locked)
end
local ok, problem = pcall(end_all)
settle(q) -- whatever stopped the endings: those before it are done
if not ok then error(problem) end

local wanted = tonumber(ARGV[6])
local rows, state, value, wait_position, prioritized_position, dropped = {}, SATISFIED, 0, 0, 0, { 0 }
if wanted > 0 then
  local limit_max = tonumber(ARGV[8])
  rows, state, value, wait_position, prioritized_position, dropped = claim(q, {
    now = now, token = token, lock_ms = lock_ms, wanted = wanted, worker_name = ARGV[7], free = free,
    limit_max = limit_max > 0 and limit_max or nil, limit_ms = limit_max > 0 and tonumber(ARGV[9]) or nil,
    heeds_any_limit = limit_max < 0,
    wait_position = tonumber(ARGV[10]), prioritized_position = tonumber(ARGV[11]),
  })
end

-- §3.5 steps 14 and 15: nobody is told "drained" while a job was claimed, or will be once its time has come.
if finished and #rows == 0 and (wanted == 0 or (state == EMPTY and value == 0)) then
  if call("LLEN", q.wait) == 0 and call("LLEN", q.active) == 0 and call("ZCARD", q.prioritized) == 0 then
    event(q, "drained")
  end
end

if lane ~= "" then
  local claimed = {}
  for i, row in ipairs(rows) do
    claimed[i] = { row[1], row[2] }
  end
  local answer = cmsgpack.pack({ codes, state, value, wait_position, prioritized_position, claimed, details, dropped })
  call("HSET", receipt, "seq", sequence, "answer", answer)
  call("PEXPIRE", receipt, 2 * lock_ms)
end

return { codes, state, value, wait_position, prioritized_position, rows, details, dropped }

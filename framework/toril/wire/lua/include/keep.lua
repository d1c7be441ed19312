-- include parents

local DROPPED_AT_ONCE = 100

local function drop_finished(q, finished, ids)
  for first = 1, #ids, DROPPED_AT_ONCE do
    local last = math.min(first + DROPPED_AT_ONCE - 1, #ids)
    local keys = {}
    for at = first, last do
      local key = q.base .. ids[at]
      pcall(drop_parent_link, q, key) -- what is damaged there has nothing to do with the job that ends now
      add_keys(keys, key)
    end
    call("DEL", unpack(keys))
    call("ZREM", finished, unpack(ids, first, last))
  end
end

-- A keep rule as the client writes it: "count,age in ms,limit", each of them empty or a number; "" keeps all.
local rules = {}
local function read_rule(text)
  local rule = rules[text]
  if not rule then
    local count, age, limit = string.match(text, "^(%d*),(%d*),(%d*)$")
    rule = { count = tonumber(count), age = tonumber(age), limit = tonumber(limit) or 1000 }
    rule.drop = rule.count == 0
    rules[text] = rule
  end
  return rule
end

-- §3.5.1, after `count` jobs were added to `finished`: what is too old goes, and then what is too many.
local function trim_finished(q, finished, rule, now, count)
  if rule.age then
    drop_finished(q, finished, call("ZREVRANGEBYSCORE", finished, now - rule.age, "-inf", "LIMIT", 0, rule.limit * count))
  end
  if rule.count and rule.count > 0 then
    local excess = call("ZCARD", finished) - rule.count
    if excess > 0 then drop_finished(q, finished, call("ZRANGE", finished, 0, excess - 1)) end
  end
end

-- What one script ends is put among the finished jobs and trimmed together, as long as it is of one kind and under one rule, and what it
-- unlocks is unlocked together: the same stays as after one by one. Whoever ends jobs calls `settle` last, and before anything that looks at
-- finished jobs or changes other ones than the one that ends: what was read ahead of those (`read_ahead`) holds no longer.
local function settle(q)
  q.none_has_children = nil
  local unlocked = q.unlocked
  if unlocked then
    q.unlocked = nil
    call("DEL", unpack(unlocked.keys))
    if call("EXISTS", q.stalled) == 1 then call("SREM", q.stalled, unpack(unlocked.ids)) end
  end
  local ended = q.ended
  if not ended then return end
  q.ended = nil
  call("ZADD", ended.finished, unpack(ended.scored))
  if ended.rule_text ~= "" then
    trim_finished(q, ended.finished, read_rule(ended.rule_text), ended.now, #ended.scored / 2)
  end
end

local function put_finished(q, finished, id, rule_text, now)
  local ended = q.ended
  if not ended or ended.finished ~= finished or ended.rule_text ~= rule_text then
    settle(q)
    ended = { finished = finished, rule_text = rule_text, now = now, scored = {} }
    q.ended = ended
  end
  local scored = ended.scored
  scored[#scored + 1] = q.now_text or now
  scored[#scored + 1] = id
end

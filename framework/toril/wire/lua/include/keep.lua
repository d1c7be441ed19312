-- include parents

local function drop_finished(q, finished, ids)
  for _, id in ipairs(ids) do
    local key = q.base .. id
    drop_parent_link(q, key)
    drop_keys(key)
    call("ZREM", finished, id)
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

-- §3.5.1, after a job was added to `finished`: what is too old goes, and then what is too many.
local function trim_finished(q, finished, rule, now)
  if rule.age then
    drop_finished(q, finished, call("ZREVRANGEBYSCORE", finished, now - rule.age, "-inf", "LIMIT", 0, rule.limit))
  end
  if rule.count and rule.count > 0 then
    local excess = call("ZCARD", finished) - rule.count
    if excess > 0 then drop_finished(q, finished, call("ZRANGE", finished, 0, excess - 1)) end
  end
end

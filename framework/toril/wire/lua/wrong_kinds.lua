#!lua flags=no-writes
--[[ wrong_kinds
Says which keys hold something of another type than they should. Asked after a command has met one, so it may take a few ms.

KEYS[1]  base of the queue's keys; any key, where none are to be looked at but those that are named
KEYS[2]  base of our own keys
ARGV[1]  then pairs: key, the type that it should have
Returns  a text for each, such as "bull:q:wait holds a string instead of a list". If none of these is wrong: the same of the keys of the
         queue's jobs, looked for among the first 1,000 of each state
]]
local base, wrong, seen = KEYS[1], {}, {}

local function check(key, wanted)
  if seen[key] then return end
  seen[key] = true
  local kind = redis.pcall("TYPE", key)
  if kind.ok and kind.ok ~= "none" and kind.ok ~= wanted then
    wrong[#wrong + 1] = key .. " holds a " .. kind.ok .. " instead of a " .. wanted
  end
end

local function check_job(key)
  check(key, "hash")
  local fields = redis.pcall("HMGET", key, "deid", "parentKey")
  if fields.err then return end
  if fields[1] then
    check(base .. "de:" .. fields[1], "string")
    check(base .. "dn:" .. fields[1], "hash")
  end
  for _, parent in ipairs({ key, fields[2] or nil }) do
    check(parent, "hash")
    check(parent .. ":dependencies", "set")
    check(parent .. ":processed", "hash")
    check(parent .. ":failed", "hash")
    check(parent .. ":unsuccessful", "zset")
  end
end

for i = 1, #ARGV, 2 do
  check(ARGV[i], ARGV[i + 1])
end
if #wrong == 0 and string.sub(base, -1) == ":" then
  for _, state in ipairs({ "wait", "paused", "active", "prioritized", "delayed", "waiting-children", "completed", "failed" }) do
    local is_list = state == "wait" or state == "paused" or state == "active"
    for _, id in ipairs(redis.call(is_list and "LRANGE" or "ZRANGE", base .. state, 0, 999)) do
      check_job(base .. id)
    end
  end
end
return wrong

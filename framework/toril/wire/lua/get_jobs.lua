#!lua flags=no-writes
--[[ get_jobs
Reads several jobs at one instant.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
ARGV[1]  number of fields f; then f field names, the first of which every job has; then ids. f = 0: all fields
Returns  for each id the values of the fields (of all: each behind its name), or an empty list if there is no such job
]]
local count = tonumber(ARGV[1])
local fields, rows = { unpack(ARGV, 2, 1 + count) }, {}

local function has_name(listed)
  for i = 1, #listed, 2 do
    if listed[i] == "name" then return true end
  end
end

for i = 2 + count, #ARGV do
  local key = KEYS[1] .. ARGV[i]
  local values = count == 0 and redis.pcall("HGETALL", key) or redis.pcall("HMGET", key, unpack(fields))
  local is_job = count == 0 and has_name(values) or count > 0 and values[1] -- an error holds neither
  rows[#rows + 1] = is_job and values or {}
end
return rows

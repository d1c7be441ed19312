#!lua flags=allow-oom
--[[ probe
Tries every command that a queue needs, on two keys that nobody else has, and leaves nothing behind.

KEYS[1]  base of the queue's keys
KEYS[2]  base of our own keys
Returns  what the server's user may not do: each command once, as "hset", or the words of another refusal
]]
local commands = {
  { "EXISTS" }, { "TYPE" }, { "GET" }, { "MGET" }, { "SET", "1" }, { "INCR" }, { "PTTL" }, { "PEXPIRE", 1000 }, { "PERSIST" }, { "DEL" }, { "UNLINK" },
  { "HSET", "a", "1" }, { "HSETNX", "a", "1" }, { "HGET", "a" }, { "HMGET", "a" }, { "HGETALL" }, { "HEXISTS", "a" }, { "HKEYS" },
  { "HLEN" }, { "HDEL", "a" },
  { "LPUSH", "a" }, { "RPUSH", "b" }, { "LLEN" }, { "RPOP" }, { "LPOS", "a" }, { "LRANGE", 0, -1 }, { "LSET", 0, "a" }, { "LREM", 0, "b" },
  { "LTRIM", 1, 0 }, { "SADD", "a" }, { "SMEMBERS" }, { "SISMEMBER", "a" }, { "SCARD" }, { "SREM", "a" },
  { "ZADD", 1, "a" }, { "ZSCORE", "a" }, { "ZCARD" }, { "ZCOUNT", 0, 1 }, { "ZRANGE", 0, 1 }, { "ZREVRANGE", 0, 1 }, { "ZRANGEBYSCORE", 0, 1 },
  { "ZREVRANGEBYSCORE", 1, 0 }, { "ZREM", "b" }, { "ZPOPMIN" }, { "BZPOPMIN", 1 },
  { "XADD", "*", "a", "1" }, { "XLEN" }, { "XRANGE", "-", "+" }, { "XREVRANGE", "+", "-" }, { "XTRIM", "MAXLEN", 0 },
}

local denied, seen = {}, {}

local function try(...)
  local reply = redis.pcall(...)
  if type(reply) ~= "table" or not reply.err then return end
  local command = string.match(reply.err, "[Nn]o permissions to run the '([^']+)'") or string.match(reply.err, "has no permissions to run the '([^']+)'")
  local words = command or (string.find(reply.err, "permission", 1, true) and reply.err)
  if words and not seen[words] then
    seen[words] = true
    denied[#denied + 1] = words
  end
end

for _, base in ipairs(KEYS) do
  local key, other = base .. "probe:a", base .. "probe:b"
  for _, command in ipairs(commands) do
    try(command[1], key, unpack(command, 2))
    redis.pcall("DEL", key)
  end
  try("LPUSH", key, "a")
  try("RENAME", key, other)
  redis.pcall("DEL", key, other)
end
try("PUBLISH", KEYS[2] .. "control", "")
return denied

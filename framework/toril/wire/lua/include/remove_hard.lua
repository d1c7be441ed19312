-- include fail

-- §3.5.2 and §3.15.4, hard: a job that is out of its collection goes away with all that belongs to it.
local function remove_hard(q, id)
  local key = q.base .. id
  drop_parent_link_hard(q, key)
  local deduplication = call("HGET", key, "deid")
  if deduplication and call("GET", q.base .. "de:" .. deduplication) == id then
    call("DEL", q.base .. "de:" .. deduplication, q.base .. "dn:" .. deduplication)
  end
  drop_keys(key)
  forget(q, id)
end

-- include queue

-- §3.5.4: one job more in its minute. `max_points` minutes are kept.
local function count_in_metrics(q, target, now, max_points)
  local key = q.base .. "metrics:" .. target
  local data = key .. ":data"
  if wrong_kind(key, "hash") or wrong_kind(data, "list") then call("DEL", key, data) end -- damaged: they begin anew
  local before = count_up(key, "count") - 1
  local last = tonumber(call("HGET", key, "prevTS") or nil)
  if not last then
    call("HSET", key, "prevTS", now, "prevCount", 0)
    return
  end
  local minutes = math.min(math.floor(now / 60000) - math.floor(last / 60000), max_points)
  if minutes <= 0 then return end
  call("LPUSH", data, before - (tonumber(call("HGET", key, "prevCount")) or 0))
  for first = 2, minutes, 1000 do
    local zeros = {}
    for i = 1, math.min(1000, minutes - first + 1) do
      zeros[i] = 0
    end
    call("LPUSH", data, unpack(zeros))
  end
  call("LTRIM", data, 0, max_points - 1)
  call("HSET", key, "prevCount", before, "prevTS", now)
end

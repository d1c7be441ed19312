-- include queue

-- §3.11: out of whichever collection holds it; the name of that one.
local function take_out(jq, job_id)
  for _, state in ipairs({ "completed", "waiting-children", "delayed", "failed", "prioritized" }) do
    if call("ZREM", jq.base .. state, job_id) == 1 then return state end
  end
  for _, state in ipairs({ "wait", "paused", "active" }) do
    if call("LREM", jq.base .. state, 0, job_id) > 0 then return state end
  end
  return "unknown"
end

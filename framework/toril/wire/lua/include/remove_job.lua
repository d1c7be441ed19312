-- include fail
-- include take_out

-- §3.11: takes a job of the queue `jq` out of everything, and tells. `q` is the queue that the operation is about.
local function remove_job(jq, q, id)
  local key = jq.base .. id
  drop_parent_link(q, key)
  local state = take_out(jq, id)
  drop_deduplication(jq, key, id)
  if call("EXISTS", key) == 1 then
    drop_keys(key)
    trimming_event(jq, "removed", "jobId", id, "prev", state)
  end
  forget(jq, id)
end

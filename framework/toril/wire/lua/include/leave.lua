-- Damage that has to do with single jobs only keeps nothing else from being done: such a job is left as it is, and told.

local left = {}

-- Does something to a job, unless something damaged refuses it before anything is written. Whether it was done.
local function done_or_left(id, step, ...)
  local ok, problem = pcall(step, ...)
  if ok then return true end
  local text = type(problem) == "table" and problem.err or tostring(problem)
  if string.sub(text, 1, 8) ~= "DAMAGED " then error(problem) end
  left[#left + 1] = id
  left[#left + 1] = string.sub(text, 9)
  return false
end

-- include queue

local ANSWER_KEPT_MS = 600000

-- §11: what an add with this token was answered, if it has been here before; nil also without a token.
local function answered(own, token)
  if token == "" then return end
  local stored = call("GET", own .. "added:" .. token)
  if stored then return cmsgpack.unpack(stored) end
end

-- Keeps the answer, so that the same add, sent again because its reply was lost, adds nothing.
local function answer(own, token, reply)
  if token ~= "" then call("SET", own .. "added:" .. token, cmsgpack.pack(reply), "PX", ANSWER_KEPT_MS) end
  return reply
end

-- The numbers asked for, from a state that takes moves; or nil, when it is not written yet, is
-- fenced, belongs to another incarnation of the server, or lacks one of them.
local function open_numbers(state, incarnation, ...)
  local fields = redis.call("HMGET", state, "incarnation", "fenced", ...)
  if fields[1] ~= incarnation or fields[2] ~= "0" then
    return nil
  end
  local numbers = {}
  for i = 3, #fields do
    numbers[i - 2] = whole_number(fields[i])
    if not numbers[i - 2] then
      return nil
    end
  end
  return unpack(numbers)
end

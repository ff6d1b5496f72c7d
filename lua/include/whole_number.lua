-- A whole number written in decimal, or nil. tonumber alone would also take
-- "nan", "inf", "0x10" and "1e9", and a missing number must never become a limit.
local function whole_number(text)
  if type(text) == "string" and #text <= 16 and string.find(text, "^%-?%d+$") then
    return tonumber(text)
  end
  return nil
end

-- Entries in the stream, the id of the oldest ("" if none), and the last id ever given out.
local function stream_ends(orders)
  if redis.call("EXISTS", orders) == 0 then
    return 0, "", "0-0"
  end
  local reply, named = redis.call("XINFO", "STREAM", orders), {}
  for i = 1, #reply, 2 do
    named[reply[i]] = reply[i + 1]
  end
  local oldest = named["first-entry"]
  return named["length"], oldest and oldest[1] or "", named["last-generated-id"]
end

-- The server's clock in Unix ms. It stands still while a script runs.
local function server_now_ms()
  local clock = redis.call("TIME")
  return clock[1] * 1000 + math.floor(clock[2] / 1000)
end

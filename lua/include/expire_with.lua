-- A key that a write has just created has no expiry yet: give it the one of `state`,
-- for the keys of a bucket expire together.
local function expire_with(state, key)
  if redis.call("PTTL", key) == -1 then
    local expires_at_ms = redis.call("PEXPIRETIME", state)
    if expires_at_ms > 0 then
      redis.call("PEXPIREAT", key, expires_at_ms)
    end
  end
end

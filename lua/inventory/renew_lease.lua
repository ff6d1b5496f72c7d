#!lua flags=allow-oom
--- renew_lease: let a bucket sell until an absolute time of this server, and set its gate.
---
--- The server is asked inside the script who it is: a promoted or restarted one renews nothing.
--- The deadline is absolute, so a renewal that lay in a frozen server's buffer is LATE. Of two
--- renewals that overtook each other the later deadline stays, with its gate; only a deadline that
--- lies too far ahead, because the clock was set back, is replaced by an earlier one. The clock is
--- the server's TIME. A coordinator that has not seen the sale row lately leaves the gate alone:
--- what it remembers may have been paused or closed since.
---
--- KEYS
---   state  hash  <deployment>:{<sale>.<bucket>}:e<epoch>:state  lease_until_ms, gate
--- ARGV
---   run_id          string  registered for this epoch
---   master_replid   string  registered for this epoch
---   lease_until_ms  int     server's Unix ms, at most 5 s ahead
---   gate            string  open, paused or closed, as the sale row says now; "" leaves it
--- RETURNS {code, detail}, checked in this order; detail: always now_ms
---   NOT_READY     -1  no state here
---   FENCED        -2  take a new epoch
---   OTHER_SERVER  -3  this server, or the state, is of another incarnation: take a new epoch
---   LATE          -4  lease_until_ms has passed
---   TOO_FAR       -5  lease_until_ms is more than 5 s ahead
---   ALREADY       1   the lease runs longer; neither it nor the gate was touched
---   RENEWED       0   lease and gate are as given
local state = KEYS[1]
local run_id, master_replid, lease_until_ms, gate = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local INCARNATION = "@incarnation@"
local LEASE_AHEAD_MS_MAX = 5000
local NOT_READY, FENCED, OTHER_SERVER, LATE, TOO_FAR, ALREADY, RENEWED = -1, -2, -3, -4, -5, 1, 0

--- @include server_time
--- @include whole_number

local function is_registered_server()
  local told = redis.call("INFO", "server") .. redis.call("INFO", "replication")
  return string.match(told, "\nrun_id:(%x+)") == run_id
    and string.match(told, "\nmaster_replid:(%x+)") == master_replid
end

local asked_until_ms = assert(whole_number(lease_until_ms), "lease_until_ms is no number")
assert(gate == "open" or gate == "paused" or gate == "closed" or gate == "", "unknown gate")

local now_ms = server_now_ms()
local fields = redis.call("HMGET", state, "incarnation", "fenced", "lease_until_ms")
local stands_until_ms = whole_number(fields[3])
if not fields[1] or not fields[2] or not stands_until_ms then
  return {NOT_READY, now_ms}
elseif fields[2] ~= "0" then
  return {FENCED, now_ms}
elseif fields[1] ~= INCARNATION or not is_registered_server() then
  return {OTHER_SERVER, now_ms}
elseif asked_until_ms <= now_ms then
  return {LATE, now_ms}
elseif asked_until_ms > now_ms + LEASE_AHEAD_MS_MAX then
  return {TOO_FAR, now_ms}
elseif stands_until_ms > asked_until_ms and stands_until_ms <= now_ms + LEASE_AHEAD_MS_MAX then
  return {ALREADY, now_ms}
end

redis.call("HSET", state, "lease_until_ms", asked_until_ms)
if gate ~= "" then
  redis.call("HSET", state, "gate", gate)
end
return {RENEWED, now_ms}

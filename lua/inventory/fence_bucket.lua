#!lua flags=allow-oom
--- fence_bucket: stop a bucket's epoch for good.
---
--- No script takes the fence away: whatever sells, renews or moves answers STALE, FENCED or
--- NOT_READY from now on. Nothing is added to the stream after this reply, so draining up to
--- last_entry_id drains all.
---
--- KEYS
---   state   hash    <deployment>:{<sale>.<bucket>}:e<epoch>:state   fenced
---   orders  stream  <deployment>:{<sale>.<bucket>}:e<epoch>:orders  one entry per accepted batch
--- RETURNS {code, last_entry_id, remaining, orders_placed}, checked in this order; -1: not known
---   NOT_READY  -1  no state here, so nothing sells; what is in the stream is still to be drained
---   ALREADY    1   it was fenced before
---   FENCED     0   it is fenced now
local state, orders = KEYS[1], KEYS[2]

local NOT_READY, ALREADY, FENCED = -1, 1, 0

--- @include whole_number
--- @include stream_ends

local fields = redis.call("HMGET", state, "fenced", "remaining", "orders_placed")
local remaining, orders_placed = whole_number(fields[2]) or -1, whole_number(fields[3]) or -1
local _, _, last_entry_id = stream_ends(orders)
if redis.call("EXISTS", state) == 0 then
  return {NOT_READY, last_entry_id, remaining, orders_placed}
elseif fields[1] == "1" then
  return {ALREADY, last_entry_id, remaining, orders_placed}
end

redis.call("HSET", state, "fenced", "1")
return {FENCED, last_entry_id, remaining, orders_placed}

#!lua flags=allow-oom
--- set_seats: shut a group, once, and say what becomes of its members.
---
--- The entry stands from then on as Postgres says; without a number of seats it keeps its own, for
--- who has joined is still on the way to Postgres. Whoever is listed and still counted in this
--- group leaves it, or belongs to the group it was merged into. After it nobody joins the group:
--- once the flush has passed the orders placed until now, Postgres knows every member.
---
--- Repeating it for the same move writes nothing and answers ALREADY. NOT_READY means try again:
--- only Postgres knows whether the epoch has moved on and the rebuild has written it so.
---
--- KEYS
---   state    hash  <deployment>:{<sale>.<bucket>}:e<epoch>:state    orders_placed
---   moves    hash  <deployment>:{<sale>.<bucket>}:e<epoch>:moves    move id -> units
---   groups   hash  <deployment>:{<sale>.<bucket>}:e<epoch>:groups   group -> seats, end, shut
---   members  hash  <deployment>:{<sale>.<bucket>}:e<epoch>:members  shopper -> live group
--- ARGV
---   move_id        string  of the row in bucket_moves
---   group          string  "<epoch>.<seq>" of the group
---   seats          int     taken from now on, or "" to leave them
---   expires_at_ms  int     when the group ends, Unix ms
---   shoppers       string  whose place changes, with blanks between them, or ""
---   members_group  string  the group they belong to from now on, or "" for none
--- RETURNS {code, detail}, checked in this order
---   NOT_READY  -1  detail: 0; no state here, or fenced, or of another incarnation
---   ALREADY    1   detail: orders placed until now
---   DONE       0   detail: orders placed until now
local state, moves, groups, members = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local move_id, group, seats = ARGV[1], ARGV[2], ARGV[3]
local expires_at_ms, shoppers, members_group = ARGV[4], ARGV[5], ARGV[6]

local INCARNATION = "@incarnation@"
local NOT_READY, ALREADY, DONE = -1, 1, 0

--- @include whole_number
--- @include expire_with
--- @include open_numbers
--- @include group_entry

local ends_at_ms = assert(whole_number(expires_at_ms), "expires_at_ms is no number")
assert(seats == "" or whole_number(seats), "seats is no number")

local orders_placed = open_numbers(state, INCARNATION, "orders_placed")
if not orders_placed then
  return {NOT_READY, 0}
end
if redis.call("HEXISTS", moves, move_id) == 1 then
  return {ALREADY, orders_placed}
end

local packed = redis.call("HGET", groups, group)
local entry = packed and read_group(packed) or {seats = 0}
entry.seats = seats == "" and entry.seats or whole_number(seats)
entry.expires_at_ms = ends_at_ms
entry.is_shut = true

redis.call("HSET", moves, move_id, 0)
redis.call("HSET", groups, group, pack_group(entry))
for shopper in string.gmatch(shoppers, "%S+") do
  if redis.call("HGET", members, shopper) == group then
    if members_group == "" then
      redis.call("HDEL", members, shopper)
    else
      redis.call("HSET", members, shopper, members_group)
    end
  end
end
expire_with(state, moves)
expire_with(state, groups)
return {DONE, orders_placed}

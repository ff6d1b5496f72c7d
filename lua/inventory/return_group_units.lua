#!lua flags=allow-oom
--- return_group_units: give back a closed group order's units and its seat, once.
---
--- As return_units, and in the same act the seat is free and its shopper may be in another group.
--- A group that is shut keeps its count: nobody joins it any more, and a formed one stays full
--- whatever becomes of an order later.
---
--- The shopper may buy as many again. The idempotency key stays remembered, so that a late retry
--- hears of the closed order; only the move of a dead letter forgets it, or hands it to the order
--- that owns it, and only while it still stands for the order returned.
---
--- Repeating it for the same move writes nothing and answers ALREADY. NOT_READY means try again:
--- only Postgres knows whether the epoch has moved on and the rebuild has counted the units. A
--- fenced state takes no moves: what the fence reported of it stays true.
---
--- KEYS
---   state     hash  <deployment>:{<sale>.<bucket>}:e<epoch>:state     remaining, units_returned
---   shoppers  hash  <deployment>:{<sale>.<bucket>}:e<epoch>:shoppers  shopper -> units held
---   replays   hash  <deployment>:{<sale>.<bucket>}:e<epoch>:replays   key hash -> order
---   moves     hash  <deployment>:{<sale>.<bucket>}:e<epoch>:moves     move id -> units
---   groups    hash  <deployment>:{<sale>.<bucket>}:e<epoch>:groups    group -> seats, end, shut
---   members   hash  <deployment>:{<sale>.<bucket>}:e<epoch>:members   shopper -> live group
--- ARGV
---   move_id      string    of the row in bucket_moves
---   shopper      string    who held the units
---   units        int       1..limit
---   key_hash     16 bytes  the key to forget, or "" to leave it remembered
---   order_stamp  7 bytes   epoch and seq of the order returned, or "" with an empty key_hash
---   owner        18 bytes  what `replays` shall hold instead, or "" to hold nothing
---   group        string    "<epoch>.<seq>" of the group whose seat the order held
--- RETURNS {code, detail}, checked in this order
---   NOT_READY  -1  detail: 0; no state here, or fenced, or of another incarnation
---   ALREADY    1   detail: units remaining
---   DONE       0   detail: units remaining
local state, shoppers, replays, moves = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local groups, members = KEYS[5], KEYS[6]
local move_id, shopper, units = ARGV[1], ARGV[2], ARGV[3]
local key_hash, order_stamp, owner = ARGV[4], ARGV[5], ARGV[6]
local group = ARGV[7]

--- @include whole_number
--- @include expire_with
--- @include open_numbers
--- @include give_back
--- @include group_entry

local packed = redis.call("HGET", groups, group)
local entry = packed and read_group(packed)

return give_back(function()
  if entry and not entry.is_shut then
    entry.seats = math.max(0, entry.seats - 1)
    redis.call("HSET", groups, group, pack_group(entry))
  end
  if redis.call("HGET", members, shopper) == group then
    redis.call("HDEL", members, shopper)
  end
end)

#!lua
--- top_up: give a bucket units that were granted to it, once.
---
--- Repeating it for the same move writes nothing and answers ALREADY. A full server refuses it,
--- for it is no way to empty one. NOT_READY means try again: only Postgres knows whether the epoch
--- has moved on and the rebuild has counted the units.
---
--- KEYS
---   state  hash  <deployment>:{<sale>.<bucket>}:e<epoch>:state  remaining
---   moves  hash  <deployment>:{<sale>.<bucket>}:e<epoch>:moves  move id -> units
--- ARGV
---   move_id  string  of the row in bucket_moves
---   units    int     1..
--- RETURNS {code, detail}, checked in this order
---   NOT_READY  -1  detail: 0; no state here, or fenced, or of another incarnation
---   ALREADY    1   detail: units remaining
---   DONE       0   detail: units remaining
local state, moves = KEYS[1], KEYS[2]
local move_id, units = ARGV[1], ARGV[2]

local INCARNATION = "@incarnation@"
local NOT_READY, ALREADY, DONE = -1, 1, 0

--- @include whole_number
--- @include expire_with
--- @include open_numbers

local added = assert(whole_number(units), "units is no number")
assert(added > 0, "a top-up adds units")

local remaining = open_numbers(state, INCARNATION, "remaining")
if not remaining then
  return {NOT_READY, 0}
end
if redis.call("HEXISTS", moves, move_id) == 1 then
  return {ALREADY, remaining}
end

redis.call("HSET", moves, move_id, added)
redis.call("HSET", state, "remaining", remaining + added)
expire_with(state, moves)
return {DONE, remaining + added}

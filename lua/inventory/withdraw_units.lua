#!lua flags=allow-oom
--- withdraw_units: take unsold units out of a bucket, as many as are left and once.
---
--- What was taken is remembered, nothing included, so that repeating it answers the same number:
--- the lease row is lowered by exactly that. A state of another incarnation may have forgotten
--- sales, so its `remaining` is not to be trusted: it answers NOT_READY, as a fenced one does.
---
--- KEYS
---   state  hash  <deployment>:{<sale>.<bucket>}:e<epoch>:state  remaining
---   moves  hash  <deployment>:{<sale>.<bucket>}:e<epoch>:moves  move id -> units
--- ARGV
---   move_id       string  of the row in bucket_moves
---   units_wanted  int     1..
--- RETURNS {code, detail}, checked in this order
---   NOT_READY  -1  detail: 0; no state here, or fenced, or of another incarnation
---   ALREADY    1   detail: units taken then, 0..units_wanted
---   DONE       0   detail: units taken, 0..units_wanted
local state, moves = KEYS[1], KEYS[2]
local move_id, units_wanted = ARGV[1], ARGV[2]

local INCARNATION = "@incarnation@"
local NOT_READY, ALREADY, DONE = -1, 1, 0

--- @include whole_number
--- @include expire_with
--- @include open_numbers

local wanted = assert(whole_number(units_wanted), "units_wanted is no number")
assert(wanted > 0, "a withdrawal takes units")

local remaining = open_numbers(state, INCARNATION, "remaining")
if not remaining then
  return {NOT_READY, 0}
end
local taken_before = redis.call("HGET", moves, move_id)
if taken_before then
  return {ALREADY, assert(whole_number(taken_before), "the units of a move are no number")}
end

local taken = math.max(0, math.min(wanted, remaining))
redis.call("HSET", moves, move_id, taken)
redis.call("HSET", state, "remaining", remaining - taken)
expire_with(state, moves)
return {DONE, taken}

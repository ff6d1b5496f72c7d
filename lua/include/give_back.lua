-- Give an order's units back, once for each move, and forget or hand over its key where that is
-- asked. It names the keys `state`, `shoppers`, `replays` and `moves`, and the arguments of the
-- script that includes it. Nothing is written before everything is checked; `free_seat` runs with
-- the writes.
local INCARNATION = "@incarnation@"
local NOT_READY, ALREADY, DONE = -1, 1, 0
local ORDER_STAMP_BYTES, REMEMBERED_BYTES = 7, 18

-- Whether the key is to be rewritten: it is still remembered as the order that is returned.
local function is_key_of_order()
  if key_hash == "" then
    return false
  end
  assert(#order_stamp == ORDER_STAMP_BYTES, "bad order_stamp")
  assert(owner == "" or #owner == REMEMBERED_BYTES, "bad owner")
  local remembered = redis.call("HGET", replays, key_hash)
  return remembered and string.sub(remembered, 1, ORDER_STAMP_BYTES) == order_stamp
end

local function rewrite_key()
  if owner == "" then
    redis.call("HDEL", replays, key_hash)
  else
    redis.call("HSET", replays, key_hash, owner)
  end
end

local function give_back(free_seat)
  local returned = assert(whole_number(units), "units is no number")
  assert(returned > 0, "a return gives units back")
  local remaining, units_returned = open_numbers(state, INCARNATION, "remaining", "units_returned")
  if not remaining then
    return {NOT_READY, 0}
  end
  if redis.call("HEXISTS", moves, move_id) == 1 then
    return {ALREADY, remaining}
  end
  local held = assert(whole_number(redis.call("HGET", shoppers, shopper)), "holds no units")
  assert(held >= returned, "holds fewer units than are returned")
  local is_rewritten = is_key_of_order()

  redis.call("HSET", moves, move_id, returned)
  redis.call("HSET", state, "remaining", remaining + returned,
    "units_returned", units_returned + returned)
  if held == returned then
    redis.call("HDEL", shoppers, shopper)
  else
    redis.call("HSET", shoppers, shopper, held - returned)
  end
  if is_rewritten then
    rewrite_key()
  end
  free_seat()
  expire_with(state, moves)
  return {DONE, remaining + returned}
end

#!lua
--- place_orders: sell to a batch of shoppers from one bucket, in one atomic act.
---
--- The sale's window is judged here, by the server's TIME, read once. Each order sees what the
--- earlier ones of its batch did. Everything is decided before the first write, and a batch that
--- is refused whole writes nothing. An answer that was given once is given again: replays are
--- looked for before anything else, so a winner's retry never hears "sold out".
---
--- Before any order, STALE for all of them: nobody may sell from these keys on this server. The
--- state is missing, incomplete or fenced, its gate is shut, it belongs to another incarnation of
--- the server, or its lease has lapsed or lies too far ahead (the clock was set back).
---
--- A malformed batch is a bug of the caller, not an answer: the script fails before any write.
---
--- KEYS
---   state     hash    <deployment>:{<sale>.<bucket>}:e<epoch>:state     stock, window, gate, lease
---   shoppers  hash    <deployment>:{<sale>.<bucket>}:e<epoch>:shoppers  shopper -> units held
---   replays   hash    <deployment>:{<sale>.<bucket>}:e<epoch>:replays   key hash -> order
---   groups    hash    <deployment>:{<sale>.<bucket>}:e<epoch>:groups    group sales only
---   members   hash    <deployment>:{<sale>.<bucket>}:e<epoch>:members   group sales only
---   orders    stream  <deployment>:{<sale>.<bucket>}:e<epoch>:orders    an entry per batch
--- ARGV
---   batch  msgpack  [1, [[key_hash, fingerprint, shopper, quantity, reference, group], ...]]
--- RETURNS {now_ms, entry_id or "", {{code, detail...}, ...}}, checked in this order
---   STALE             -5   detail: 0
---   REPLAY            1    detail: seq, epoch, placed_at_ms of the order this key has made
---   KEY_MISMATCH      -1   detail: 0
---   NOT_OPEN          -2   detail: 0
---   ENDED             -3   detail: 0
---   PAUSED            -4   detail: 0
---   GROUP_NOT_FOUND   -9   detail: 0, reserved for group sales
---   GROUP_FULL        -10  detail: 0, reserved for group sales
---   GROUP_EXPIRED     -11  detail: 0, reserved for group sales
---   IN_ANOTHER_GROUP  -12  detail: 0, reserved for group sales
---   OVER_LIMIT        -7   detail: units the shopper may still take
---   SOLD_OUT          -8   detail: units left
---   BACKLOG_FULL      -6   detail: 0
---   PLACED            0    detail: seq
local state, shoppers, replays, groups, members, orders =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local batch = ARGV[1]

--- @include server_time
--- @include whole_number
--- @include expire_with
--- @include placing

local function answer(plan, bucket, order, window, now_ms)
  local known = plan.known[order[1]]
  if known then
    return answer_known_key(known, order[2])
  elseif window then
    return {window, 0}
  end
  local held = units_held(plan.held[order[3]])
  return refuse(bucket, held, order[4]) or accept(plan, bucket, order, held, now_ms)
end

local now_ms = server_now_ms()
local asked = read_batch()
local bucket = read_bucket(now_ms)
if not bucket then
  return {now_ms, "", answer_all(asked, function() return {STALE, 0} end)}
end

local plan = {
  epoch = assert(tonumber(string.match(state, ":e(%d+):state$")), "a state of no epoch"),
  known = look_up(replays, asked, 1),
  held = look_up(shoppers, asked, 3),
  accepted = {},
  remembered = {},
}
local first_seq = bucket.orders_placed
local window = refusal_of_window(bucket, now_ms)
local answers = answer_all(asked, function(order)
  return answer(plan, bucket, order, window, now_ms)
end)
if #plan.accepted == 0 then
  return {now_ms, "", answers}
end
return {now_ms, write(plan, bucket, asked, first_seq, now_ms), answers}

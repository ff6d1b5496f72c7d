#!lua
--- place_group_orders: sell group seats to a batch of shoppers, in one atomic act.
---
--- As place_orders in everything, and a seat besides: an order opens a group or takes a seat in
--- one, in the same act that takes its units. A group is named by the order that opens it, so its
--- id needs no random byte and a replay tells the same one; the entry in the stream names the
--- group of each order, and the group's opener is the order whose own place is that name.
---
--- A full group refuses before anybody pays. Joining ends some seconds before a group does, so
--- that no member is made who could not pay any more; a group that is shut takes nobody. Each
--- order takes one seat, whatever its quantity, and a shopper is in one live group of the sale.
---
--- Before any order, STALE for all of them, as in place_orders; also when the terms of its groups
--- are missing. A malformed batch is a bug of the caller: the script fails before any write.
---
--- KEYS
---   state     hash    <deployment>:{<sale>.<bucket>}:e<epoch>:state     stock, window, gate, lease
---   shoppers  hash    <deployment>:{<sale>.<bucket>}:e<epoch>:shoppers  shopper -> units held
---   replays   hash    <deployment>:{<sale>.<bucket>}:e<epoch>:replays   key hash -> order
---   groups    hash    <deployment>:{<sale>.<bucket>}:e<epoch>:groups    group -> seats, end, shut
---   members   hash    <deployment>:{<sale>.<bucket>}:e<epoch>:members   shopper -> live group
---   orders    stream  <deployment>:{<sale>.<bucket>}:e<epoch>:orders    an entry per batch
--- ARGV
---   batch  msgpack  as for place_orders; group: "new", or "<epoch>.<seq>" of the group to join
--- RETURNS {now_ms, entry_id or "", {{code, detail...}, ...}}, checked in this order
---   STALE             -5   detail: 0
---   REPLAY            1    detail: seq, epoch, placed_at_ms of the order this key has made
---   KEY_MISMATCH      -1   detail: 0
---   NOT_OPEN          -2   detail: 0
---   ENDED             -3   detail: 0
---   PAUSED            -4   detail: 0
---   GROUP_NOT_FOUND   -9   detail: 0
---   GROUP_FULL        -10  detail: 0
---   GROUP_EXPIRED     -11  detail: 0
---   IN_ANOTHER_GROUP  -12  detail: 0; in this group, too
---   OVER_LIMIT        -7   detail: units the shopper may still take
---   SOLD_OUT          -8   detail: units left
---   BACKLOG_FULL      -6   detail: 0
---   PLACED            0    detail: seq
local state, shoppers, replays, groups, members, orders =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local batch = ARGV[1]

local GROUP_NOT_FOUND, GROUP_FULL, GROUP_EXPIRED, IN_ANOTHER_GROUP = -9, -10, -11, -12
local NEW_GROUP = "new"
local JOIN_ENDS_BEFORE_MS = 5000

--- @include server_time
--- @include whole_number
--- @include expire_with
--- @include placing
--- @include group_entry

-- The terms of the sale's groups, or nil when the state lacks one.
local function read_terms()
  local fields = redis.call("HMGET", state, "group_size", "group_window_ms")
  local size, window_ms = whole_number(fields[1]), whole_number(fields[2])
  if not size or not window_ms or size < 2 or window_ms <= 0 then
    return nil
  end
  return {size = size, window_ms = window_ms}
end

-- The group that an order wants to join, as the earlier ones of the batch have left it.
local function group_named(plan, wish)
  local group = plan.groups[wish]
  if type(group) == "string" then
    group = read_group(group)
    plan.groups[wish] = group
  end
  return group
end

-- The refusal of a seat, or nil if there is one.
local function refuse_seat(plan, shopper, wish, now_ms)
  if wish ~= NEW_GROUP then
    local group = group_named(plan, wish)
    if not group then
      return {GROUP_NOT_FOUND, 0}
    elseif group.seats >= plan.terms.size then
      return {GROUP_FULL, 0}
    elseif group.is_shut or now_ms >= group.expires_at_ms - JOIN_ENDS_BEFORE_MS then
      return {GROUP_EXPIRED, 0}
    end
  end
  return plan.members[shopper] and {IN_ANOTHER_GROUP, 0} or nil
end

-- Take the seat in memory; the order carries its group's name from now on.
local function take_seat(plan, order, seq, now_ms)
  local wish = order[6]
  if wish == NEW_GROUP then
    wish = string.format("%d.%d", plan.epoch, seq)
    order[6] = wish
    plan.groups[wish] = {seats = 0, expires_at_ms = now_ms + plan.terms.window_ms, is_shut = false}
  end
  local group = plan.groups[wish]
  group.seats = group.seats + 1
  plan.members[order[3]] = wish
end

local function answer(plan, bucket, order, window, now_ms)
  local known = plan.known[order[1]]
  if known then
    return answer_known_key(known, order[2])
  elseif window then
    return {window, 0}
  end
  local held = units_held(plan.held[order[3]])
  local refusal = refuse_seat(plan, order[3], order[6], now_ms)
    or refuse(bucket, held, order[4])
  if refusal then
    return refusal
  end
  take_seat(plan, order, bucket.orders_placed, now_ms)
  return accept(plan, bucket, order, held, now_ms)
end

local function write_seats(plan)
  local entries, places, seen = {}, {}, {}
  for _, order in ipairs(plan.accepted) do
    local shopper, name = order[3], order[6]
    places[#places + 1] = shopper
    places[#places + 1] = name
    if not seen[name] then
      seen[name] = true
      entries[#entries + 1] = name
      entries[#entries + 1] = pack_group(plan.groups[name])
    end
  end
  redis.call("HSET", groups, unpack(entries))
  redis.call("HSET", members, unpack(places))
  expire_with(state, groups)
  expire_with(state, members)
end

local now_ms = server_now_ms()
local asked = read_batch()
for _, order in ipairs(asked) do
  assert(order[6] ~= "", "an order of a group sale names no group")
end
local bucket, terms = read_bucket(now_ms), read_terms()
if not bucket or not terms then
  return {now_ms, "", answer_all(asked, function() return {STALE, 0} end)}
end

local plan = {
  epoch = assert(tonumber(string.match(state, ":e(%d+):state$")), "a state of no epoch"),
  terms = terms,
  known = look_up(replays, asked, 1),
  held = look_up(shoppers, asked, 3),
  members = look_up(members, asked, 3),
  groups = look_up(groups, asked, 6),
  accepted = {},
  changes_orders = true,  -- each carries the name of its group
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
local entry_id = write(plan, bucket, asked, first_seq, now_ms)
write_seats(plan)
return {now_ms, entry_id, answers}

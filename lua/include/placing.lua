-- What every script that sells does alike: read a batch, judge window, limit, stock and backlog,
-- and write what was accepted. It names the keys `state`, `shoppers`, `replays` and `orders`, and
-- the argument `batch`, of the script that includes it.
local INCARNATION = "@incarnation@"
local BATCH_VERSION, BATCH_ORDERS_MAX, QUANTITY_MAX = 1, 1024, 1000000
local LEASE_AHEAD_MS_MAX = 5000
local KEY_HASH_BYTES, FINGERPRINT_BYTES = 16, 8

-- msgpack: an array of two or of four, of which the first is the version.
local BATCH_HEAD, ENTRY_HEAD = "\146\1", "\148\1"

local STALE, REPLAY, KEY_MISMATCH = -5, 1, -1
local NOT_OPEN, ENDED, PAUSED = -2, -3, -4
local OVER_LIMIT, SOLD_OUT, BACKLOG_FULL, PLACED = -7, -8, -6, 0

-- What `replays` holds, big-endian: epoch 2 bytes, seq 5, placed_at_ms 6, and of the fingerprint
-- the first 5: 18 bytes are the most that cost a field no more memory than 11 would.
local REMEMBERED, REMEMBERED_BYTES = ">I2I5I6c5", 18
local REMEMBERED_FINGERPRINT_AT, REMEMBERED_FINGERPRINT_BYTES = 14, 5

-- The loops below run for every order that is sold: locals instead of look-ups, and no iterators.
local type, sub, pack_struct = type, string.sub, struct.pack

local function is_sound(order)
  local key_hash, fingerprint, shopper, quantity = order[1], order[2], order[3], order[4]
  return #order == 6
    and type(key_hash) == "string" and #key_hash == KEY_HASH_BYTES
    and type(fingerprint) == "string" and #fingerprint == FINGERPRINT_BYTES
    and type(shopper) == "string" and shopper ~= ""
    and type(quantity) == "number" and quantity % 1 == 0
    and quantity >= 1 and quantity <= QUANTITY_MAX
    and type(order[5]) == "string" and type(order[6]) == "string"
end

local function read_batch()
  local parts, more = cmsgpack.unpack(batch)
  local version, asked = parts[1], parts[2]
  assert(more == nil, "more than one batch")
  assert(version == BATCH_VERSION, "unknown version of the batch")
  assert(#asked >= 1 and #asked <= BATCH_ORDERS_MAX, "bad number of orders")
  for i = 1, #asked do
    assert(is_sound(asked[i]), "a malformed order")
  end
  return asked
end

-- The bucket as it stands, or nil when nobody may sell from it.
local function read_bucket(now_ms)
  local fields = redis.call("HMGET", state, "incarnation", "fenced", "gate", "lease_until_ms",
    "opens_at_ms", "closes_at_ms", "limit", "remaining", "orders_placed", "units_placed",
    "orders_flushed", "backlog_max")
  local gate, lease_until_ms = fields[3], whole_number(fields[4])
  if fields[1] ~= INCARNATION or fields[2] ~= "0" or not lease_until_ms then
    return nil
  end
  if lease_until_ms <= now_ms or lease_until_ms > now_ms + LEASE_AHEAD_MS_MAX then
    return nil
  end
  if gate ~= "open" and gate ~= "paused" and gate ~= "closed" then
    return nil
  end
  local bucket = {
    gate = gate,
    opens_at_ms = whole_number(fields[5]),
    closes_at_ms = whole_number(fields[6]),
    limit = whole_number(fields[7]),
    remaining = whole_number(fields[8]),
    orders_placed = whole_number(fields[9]),
    units_placed = whole_number(fields[10]),
    orders_flushed = whole_number(fields[11]),
    backlog_max = whole_number(fields[12]),
  }
  local whole = bucket.opens_at_ms and bucket.closes_at_ms and bucket.limit
    and bucket.remaining and bucket.orders_placed and bucket.units_placed
    and bucket.orders_flushed and bucket.backlog_max
  return whole and bucket or nil
end

-- The window's answer for every order that is no replay, or nil while it is open. A sale that
-- was closed before its opening has ended, it will not open.
local function refusal_of_window(bucket, now_ms)
  if bucket.gate ~= "closed" and now_ms < bucket.opens_at_ms then
    return NOT_OPEN
  elseif bucket.gate == "closed" or now_ms >= bucket.closes_at_ms then
    return ENDED
  elseif bucket.gate == "paused" then
    return PAUSED
  end
  return nil
end

-- One HMGET for a column of the batch: field -> value, or false where there is none.
local function look_up(key, asked, column)
  local fields, found = {}, {}
  for i = 1, #asked do
    fields[i] = asked[i][column]
  end
  local values = redis.call("HMGET", key, unpack(fields))
  for i = 1, #fields do
    found[fields[i]] = values[i]
  end
  return found
end

-- What `shoppers` held before the batch is text, or false; what the batch added is a number.
local function units_held(value)
  if type(value) == "number" then
    return value
  elseif not value then
    return 0
  end
  return assert(whole_number(value), "the units a shopper holds are no number")
end

local function answer_known_key(remembered, fingerprint)
  assert(#remembered == REMEMBERED_BYTES, "a remembered order of another length")
  local known = sub(remembered, REMEMBERED_FINGERPRINT_AT)
  if known ~= sub(fingerprint, 1, REMEMBERED_FINGERPRINT_BYTES) then
    return {KEY_MISMATCH, 0}
  end
  local epoch, seq, placed_at_ms = struct.unpack(REMEMBERED, remembered)
  return {REPLAY, seq, epoch, placed_at_ms}
end

-- The refusal of an order that is new, or nil if it is to be placed.
local function refuse(bucket, held, quantity)
  if held + quantity > bucket.limit then
    return {OVER_LIMIT, math.max(0, bucket.limit - held)}
  elseif quantity > bucket.remaining then
    return {SOLD_OUT, math.max(0, bucket.remaining)}
  elseif bucket.orders_placed - bucket.orders_flushed >= bucket.backlog_max then
    return {BACKLOG_FULL, 0}
  end
  return nil
end

-- Take the units in memory and note what accepting this order will write.
local function accept(plan, bucket, order, held, now_ms)
  local key_hash, fingerprint, shopper, quantity = order[1], order[2], order[3], order[4]
  local accepted, seq = #plan.accepted, bucket.orders_placed
  local remembered = pack_struct(REMEMBERED, plan.epoch, seq, now_ms, fingerprint)
  bucket.remaining = bucket.remaining - quantity
  bucket.orders_placed = seq + 1
  bucket.units_placed = bucket.units_placed + quantity
  plan.known[key_hash] = remembered
  plan.held[shopper] = held + quantity
  plan.accepted[accepted + 1] = order
  plan.remembered[2 * accepted + 1] = key_hash
  plan.remembered[2 * accepted + 2] = remembered
  return {PLACED, seq}
end

-- One field and value per buyer; who bought twice in a batch is written once, with the last count.
local function units_of_buyers(plan)
  local fields, seen, accepted, held = {}, {}, plan.accepted, plan.held
  for i = 1, #accepted do
    local shopper = accepted[i][3]
    if not seen[shopper] then
      seen[shopper] = true
      fields[#fields + 1] = shopper
      fields[#fields + 1] = held[shopper]
    end
  end
  return fields
end

-- The entry holds the accepted orders as the batch spelt them: when none was refused and none was
-- changed, that is the batch without its head.
local function entry_of(plan, asked, first_seq, now_ms)
  if #plan.accepted < #asked or plan.changes_orders or sub(batch, 1, #BATCH_HEAD) ~= BATCH_HEAD then
    return cmsgpack.pack({BATCH_VERSION, first_seq, now_ms, plan.accepted})
  end
  return ENTRY_HEAD .. cmsgpack.pack(first_seq, now_ms) .. sub(batch, #BATCH_HEAD + 1)
end

-- The entry first: of these writes only it could fail, if `orders` were no stream.
local function write(plan, bucket, asked, first_seq, now_ms)
  local entry = entry_of(plan, asked, first_seq, now_ms)
  local entry_id = redis.call("XADD", orders, "*", "b", entry)
  redis.call("HSET", replays, unpack(plan.remembered))
  redis.call("HSET", shoppers, unpack(units_of_buyers(plan)))
  redis.call("HSET", state, "remaining", bucket.remaining, "orders_placed", bucket.orders_placed,
    "units_placed", bucket.units_placed)
  expire_with(state, orders)
  expire_with(state, replays)
  expire_with(state, shoppers)
  return entry_id
end

local function answer_all(asked, answer_one)
  local answers = {}
  for i = 1, #asked do
    answers[i] = answer_one(asked[i])
  end
  return answers
end

#!lua flags=allow-oom
--- trim_stream: forget the entries that Postgres has, and lower the backlog.
---
--- Both numbers are absolute, so repeating it is harmless; an older call trims less and never
--- lowers orders_flushed. A fenced bucket is trimmed too: its stream is still drained.
---
--- KEYS
---   state   hash    <deployment>:{<sale>.<bucket>}:e<epoch>:state   orders_flushed
---   orders  stream  <deployment>:{<sale>.<bucket>}:e<epoch>:orders  one entry per accepted batch
--- ARGV
---   keep_from       entry id  the smallest id above the committed offset
---   orders_flushed  int       orders seen by the flusher, committed with that offset
--- RETURNS {code, detail}, checked in this order
---   NOT_READY  -1  detail: 0
---   TRIMMED    0   detail: entries removed
local state, orders = KEYS[1], KEYS[2]
local keep_from, orders_flushed = ARGV[1], ARGV[2]

local NOT_READY, TRIMMED = -1, 0

--- @include whole_number

local flushed = assert(whole_number(orders_flushed), "orders_flushed is no number")
local flushed_before = whole_number(redis.call("HGET", state, "orders_flushed"))
if not flushed_before then
  return {NOT_READY, 0}
end

local removed = redis.call("XTRIM", orders, "MINID", "=", keep_from)
if flushed > flushed_before then
  redis.call("HSET", state, "orders_flushed", flushed)
end
return {TRIMMED, removed}

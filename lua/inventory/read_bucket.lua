#!lua flags=no-writes
--- read_bucket: tell how a bucket stands, as one picture.
---
--- The oldest entry's id begins with the server's time at which it was placed, so that and now_ms
--- give the age of the oldest unflushed order by one clock.
---
--- KEYS
---   state   hash    <deployment>:{<sale>.<bucket>}:e<epoch>:state   all of it
---   orders  stream  <deployment>:{<sale>.<bucket>}:e<epoch>:orders  one entry per accepted batch
--- RETURNS {code, now_ms, {field, value, ...}, entries, first_entry_id or "", last_entry_id}
---   NOT_READY  -1  no state here: the fields are empty, the rest is told
---   READ       0   state and stream
local state, orders = KEYS[1], KEYS[2]

local NOT_READY, READ = -1, 0

--- @include server_time
--- @include stream_ends

local fields = redis.call("HGETALL", state)
local code = #fields == 0 and NOT_READY or READ
return {code, server_now_ms(), fields, stream_ends(orders)}

-- What `groups` holds of a group, big-endian: seats taken 2 bytes, expires_at_ms 6, shut 1.
local GROUP_ENTRY = ">I2I6I1"
local GROUP_ENTRY_BYTES = 9

local function read_group(packed)
  assert(#packed == GROUP_ENTRY_BYTES, "a group's entry of another length")
  local seats, expires_at_ms, shut = struct.unpack(GROUP_ENTRY, packed)
  return {seats = seats, expires_at_ms = expires_at_ms, is_shut = shut == 1}
end

local function pack_group(group)
  return struct.pack(GROUP_ENTRY, group.seats, group.expires_at_ms, group.is_shut and 1 or 0)
end

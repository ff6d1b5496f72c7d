"""Stage three: how many are left."""

"""How late one was who got nothing."""

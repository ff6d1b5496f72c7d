"""What operators do with paid orders: review, ship, decide, note, search."""

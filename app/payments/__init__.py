"""Stage 5: the shopper pays."""

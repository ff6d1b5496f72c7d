"""Stage 4: one shopper's purchase, from the click to the row and to its end."""

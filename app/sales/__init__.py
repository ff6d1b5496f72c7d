"""Stage 1: what is sold, when, to how many."""

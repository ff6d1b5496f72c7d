"""Stage 6, settlement: who is owed what, and the proof."""

"""Dead letters: what could not be done, kept for a person to decide."""

"""Answers that are pushed: who waits for news of an order hears them as they happen."""

"""Plumbing to Redis and Postgres; knows no feature."""

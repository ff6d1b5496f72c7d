"""Plumbing to HTTP: listeners, deadlines, bodies, refusals, health, OpenAPI; knows no feature."""

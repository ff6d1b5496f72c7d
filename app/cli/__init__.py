"""The command `doorbuster`: parse, call, print."""

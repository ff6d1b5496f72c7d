"""Pure words of the service; standard library only."""

"""Start, watch and stop Valkey and Postgres from their wheels, and the roles of `doorbuster up`."""

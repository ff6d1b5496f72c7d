"""The other side of a payment: a gateway for demos, tests and load, with real signatures."""

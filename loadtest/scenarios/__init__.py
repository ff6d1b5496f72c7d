"""What Locust plays: one module per scenario, each with one user class."""

"""What the harness relies on, and the gate on counted work."""

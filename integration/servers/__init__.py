"""Real servers on loopback for one test session: taken from the environment, or started here and stopped afterwards."""

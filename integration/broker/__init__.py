"""The broker on a real PostgreSQL, guarantee by guarantee."""

"""The page and the REST API on a real PostgreSQL, and in a browser."""

"""The store in memory. It follows the same protocol as the one in PostgreSQL, and passes the same suite."""

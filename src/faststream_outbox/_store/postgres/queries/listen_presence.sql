-- Held by the session: it is there as long as the connection is, and PostgreSQL drops it with the connection.
SELECT pg_advisory_lock(hashtextextended(:token, 0)), pg_backend_pid() AS backend

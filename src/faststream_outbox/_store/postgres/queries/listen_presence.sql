-- Held by the session: it is there as long as the connection is, and PostgreSQL drops it with the connection. Shared, since
-- a process that gives up a silent connection comes back on another, and PostgreSQL may keep the first one for hours.
SELECT pg_advisory_lock_shared(hashtextextended(:token, 0)), pg_backend_pid() AS backend

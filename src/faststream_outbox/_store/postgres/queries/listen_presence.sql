-- Held by the session: it is there as long as the connection is, and PostgreSQL drops it with the connection. Shared, since
-- a process that gives up a silent connection comes back on another, and PostgreSQL may keep the first one for hours.
-- The rest says what the table is called, by which the channel is named; nothing where it is not there yet.
SELECT pg_advisory_lock_shared(hashtextextended(:token, 0)), pg_backend_pid() AS backend,
    named.oid, named.nspname, named.relname, pg_table_is_visible(named.oid) AS is_visible
FROM (SELECT) AS one
LEFT JOIN (
    SELECT pg_class.oid, nspname, relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
) AS named ON named.oid = to_regclass(:table)

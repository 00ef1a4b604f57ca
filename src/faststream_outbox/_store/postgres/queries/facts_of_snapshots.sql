-- What keeps PostgreSQL from cleaning up deleted rows: transactions that hold a snapshot for longer than :seconds, prepared
-- ones, and replication slots. Sessions of other users show their times only to members of pg_read_all_stats.
SELECT 'session' AS kind, 'pid ' || pid AS name, CAST(usename AS text) AS user, application_name AS application, state,
    CAST(EXTRACT(epoch FROM statement_timestamp() - xact_start) AS float8) AS seconds
FROM pg_stat_activity
WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND pid <> pg_backend_pid()
  AND backend_type = 'client backend' AND datname = current_database()
  AND xact_start < statement_timestamp() - make_interval(secs => CAST(:seconds AS float8))
UNION ALL
SELECT 'prepared transaction', gid, CAST(owner AS text), NULL, NULL,
    CAST(EXTRACT(epoch FROM statement_timestamp() - prepared) AS float8)
FROM pg_prepared_xacts
WHERE database = current_database() AND prepared < statement_timestamp() - make_interval(secs => CAST(:seconds AS float8))
UNION ALL
SELECT 'replication slot', CAST(slot_name AS text), NULL, NULL, CASE WHEN active THEN 'active' ELSE 'inactive' END, NULL
FROM pg_replication_slots
WHERE xmin IS NOT NULL AND NOT active
ORDER BY seconds DESC NULLS LAST
LIMIT 20

-- The transactions that have written to the table, or are about to: each takes this lock before its rows get their ids,
-- and keeps it until it ends. One that is prepared for a two-phase commit has no process, and gets another name when the
-- server restarts. One row without a transaction says which run of which server this is about.
SELECT virtualtransaction, pid IS NULL AS is_prepared, pg_postmaster_start_time() AS server
FROM (SELECT pg_postmaster_start_time()) AS run
LEFT JOIN pg_locks
    ON locktype = 'relation' AND relation = CAST(:table AS regclass) AND mode = 'RowExclusiveLock' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())

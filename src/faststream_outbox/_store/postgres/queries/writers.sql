-- The transactions that have written to the table, or are about to: each takes this lock before its rows get their ids,
-- and keeps it until it ends. One that is prepared for a two-phase commit has no process, and gets another name when the
-- server restarts.
SELECT virtualtransaction, pid IS NULL AS is_prepared
FROM pg_locks
WHERE locktype = 'relation' AND relation = CAST(:table AS regclass) AND mode = 'RowExclusiveLock' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())

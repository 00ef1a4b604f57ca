-- The transactions that have written to the table, or are about to: each takes this lock before its rows get their ids,
-- and keeps it until it ends. One that is prepared for a two-phase commit has no process, and gets another name when the
-- server restarts. One row without a transaction says which run of which server this is about, and which id the sequence
-- has given last: NULL where the role may not read the sequence, or where it is not the column's own.
SELECT virtualtransaction, pid IS NULL AS is_prepared, started, recovered, last_id
FROM (
    SELECT pg_postmaster_start_time() AS started, pg_stat_get_bgwriter_stat_reset_time() AS recovered,
        CASE
            WHEN has_sequence_privilege(CAST(given.sequence AS regclass), 'SELECT')
            THEN pg_sequence_last_value(CAST(given.sequence AS regclass))
        END AS last_id
    FROM pg_get_serial_sequence(CAST(:table AS text), 'id') AS given(sequence)
) AS run
LEFT JOIN pg_locks
    ON locktype = 'relation' AND relation = CAST(:table AS regclass) AND mode = 'RowExclusiveLock' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())

-- What the server's statistics say of these tables; rows are estimates. A table that is not there is left out.
SELECT given.name AS table, CAST(class.reltuples AS bigint) AS estimated_rows, COALESCE(stat.n_dead_tup, 0) AS dead_rows,
    pg_table_size(class.oid) AS table_bytes, pg_indexes_size(class.oid) AS index_bytes,
    GREATEST(stat.last_vacuum, stat.last_autovacuum) AS last_vacuum,
    GREATEST(stat.last_analyze, stat.last_autoanalyze) AS last_analyze,
    COALESCE(class.reloptions, CAST(ARRAY[] AS text[])) AS options, class.relrowsecurity AS has_row_security,
    ARRAY(
        SELECT CAST(tgname AS text)
        FROM pg_trigger
        WHERE tgrelid = class.oid AND NOT tgisinternal AND tgenabled <> 'D'
        ORDER BY tgname
    ) AS triggers,
    COALESCE(stat.n_tup_ins, 0) AS rows_inserted, COALESCE(stat.n_tup_del, 0) AS rows_deleted
FROM unnest(CAST(:tables AS text[])) WITH ORDINALITY AS given (name, number)
JOIN pg_class AS class ON class.oid = to_regclass(given.name)
LEFT JOIN pg_stat_user_tables AS stat ON stat.relid = class.oid
ORDER BY given.number

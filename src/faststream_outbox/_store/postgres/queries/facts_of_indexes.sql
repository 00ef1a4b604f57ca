-- The indexes of these tables.
SELECT given.name AS table, CAST(class.relname AS text) AS name, indisvalid AND indisready AS is_valid,
    indisunique AS is_unique,
    ARRAY(
        SELECT pg_get_indexdef(indexrelid, number, true) FROM generate_series(1, CAST(indnkeyatts AS integer)) AS number
    ) AS columns,
    pg_get_expr(indpred, indrelid) AS predicate
FROM unnest(CAST(:tables AS text[])) WITH ORDINALITY AS given (name, number)
JOIN pg_index ON indrelid = to_regclass(given.name)
JOIN pg_class AS class ON class.oid = indexrelid
ORDER BY given.number, class.relname

-- Make dead letters that hold their key ordinary rows again, in place and due at once. Their last attempt stays noted, so
-- that they go on holding back the later rows of their key until they are settled: each comes first of its key.
UPDATE {table}
SET attempts_count = 0,
    deliveries_count = 0,
    first_attempt_at = NULL,
    next_attempt_at = statement_timestamp(),
    failed_at = NULL,
    failure_reason = NULL,
    last_exception = NULL
WHERE id = ANY (ARRAY(
    SELECT d.id
    FROM {table} AS d
    WHERE {selected} AND d.next_attempt_at IS NOT NULL
    ORDER BY d.id
    LIMIT CAST(:limit AS integer)
    FOR UPDATE SKIP LOCKED
))
RETURNING id, pg_notify(CAST(:channel AS text), queue)

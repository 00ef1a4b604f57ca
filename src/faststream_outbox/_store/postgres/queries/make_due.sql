-- Rows that were deferred until a part of their destination takes rows again are due now. They are found by the times at
-- which they would be due, which are the part's own to the microsecond. A timer has not been tried, and is none of them.
UPDATE {table} AS o
SET next_attempt_at = statement_timestamp()
WHERE {planned_anew} AND o.id = ANY (ARRAY(
    SELECT row.id
    FROM unnest(CAST(:queues AS text[]), CAST(:shards AS smallint[])) AS s(queue, shard)
    CROSS JOIN generate_series(1, 2) AS minutes
    CROSS JOIN LATERAL (
        SELECT id
        FROM {table}
        WHERE queue = s.queue AND shard = s.shard
          AND next_attempt_at = date_bin(
              INTERVAL '1 minute',
              statement_timestamp(),
              TIMESTAMPTZ 'epoch' + CAST(:slot AS bigint) * INTERVAL '1 microsecond'
          ) + minutes * INTERVAL '1 minute'
          AND last_attempt_at IS NOT NULL AND acquired_token IS NULL AND failed_at IS NULL
        LIMIT CAST(:limit AS integer)
        FOR UPDATE SKIP LOCKED
    ) AS row
    LIMIT CAST(:limit AS integer)
))
RETURNING o.id

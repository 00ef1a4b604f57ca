-- How long until the first waiting row of these shards is due.
SELECT CAST(EXTRACT(epoch FROM min(row.next_attempt_at) - statement_timestamp()) AS float8)
FROM unnest(CAST(:queues AS text[]), CAST(:shards AS smallint[])) AS wanted(queue, shard)
CROSS JOIN LATERAL (
    SELECT next_attempt_at
    FROM {table}
    WHERE queue = wanted.queue AND shard = wanted.shard
      AND next_attempt_at IS NOT NULL AND acquired_token IS NULL AND failed_at IS NULL
    ORDER BY next_attempt_at
    LIMIT 1
) AS row
WHERE {planned_anew}

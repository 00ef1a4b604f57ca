-- Return queues, other than the given ones, that have a row to be taken. The statement skips through the indexes from one
-- name to the next, between the given names and never in their rows. So its cost depends on the number of names: neither on
-- the number of waiting rows, nor on a consumed queue's delivered rows that an open snapshot keeps.
WITH gap AS (
    SELECT name AS low, lead(name) OVER (ORDER BY name) AS high
    FROM (SELECT CAST('' AS text) UNION SELECT unnest(CAST(:consumed AS text[]))) AS given (name)
)
SELECT found.queue
FROM gap
CROSS JOIN LATERAL (
    WITH RECURSIVE step AS (
        SELECT gap.low AS queue
        UNION ALL
        SELECT LEAST(
            CASE WHEN gap.high IS NULL THEN (
                SELECT queue FROM {table}
                WHERE queue > step.queue AND next_attempt_at IS NULL AND failed_at IS NULL
                ORDER BY queue LIMIT 1
            ) ELSE (
                SELECT queue FROM {table}
                WHERE queue > step.queue AND queue < gap.high AND next_attempt_at IS NULL AND failed_at IS NULL
                ORDER BY queue LIMIT 1
            ) END,
            CASE WHEN gap.high IS NULL THEN (
                SELECT queue FROM {table}
                WHERE queue > step.queue
                  AND next_attempt_at IS NOT NULL AND acquired_token IS NULL AND failed_at IS NULL
                ORDER BY queue LIMIT 1
            ) ELSE (
                SELECT queue FROM {table}
                WHERE queue > step.queue AND queue < gap.high
                  AND next_attempt_at IS NOT NULL AND acquired_token IS NULL AND failed_at IS NULL
                ORDER BY queue LIMIT 1
            ) END
        )
        FROM step
        WHERE step.queue IS NOT NULL
    )
    SELECT queue FROM step WHERE queue <> gap.low
) AS found
-- A timer that is not due, and a retry that waits, are nobody's backlog yet.
WHERE {planned_anew}
  AND (
    -- Ordered, for else all ready rows of all queues might be read to find those of this one.
    (
        SELECT true FROM {table}
        WHERE queue = found.queue AND next_attempt_at IS NULL AND failed_at IS NULL
        ORDER BY queue, shard, id LIMIT 1
    )
    OR EXISTS (
        SELECT FROM generate_series(0, CAST(:shards AS integer) - 1) AS shard (number)
        CROSS JOIN LATERAL (
            SELECT next_attempt_at FROM {table}
            WHERE queue = found.queue AND shard = shard.number
              AND next_attempt_at IS NOT NULL AND acquired_token IS NULL AND failed_at IS NULL
            ORDER BY next_attempt_at LIMIT 1
        ) AS row
        WHERE row.next_attempt_at <= statement_timestamp()
    )
  )
LIMIT CAST(:limit AS bigint)

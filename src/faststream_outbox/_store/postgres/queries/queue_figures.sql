-- How many rows of each queue are in which state. Takes no lock. Of ready, due and waiting rows, :at_most are counted in
-- each shard; of leased rows of all queues together, and of dead letters of each queue, :at_most in each table. A shard's
-- first ready row is its oldest one. Each look is ordered as its index is, which keeps the planner to that index.
WITH leased AS MATERIALIZED (
    SELECT queue, next_attempt_at
    FROM {table}
    WHERE acquired_token IS NOT NULL
    ORDER BY acquired_token, next_attempt_at
    LIMIT CAST(:at_most AS bigint)
)
SELECT given.queue,
    shards.ready, shards.ready_is_whole, shards.due, shards.due_is_whole,
    shards.timers, shards.retries, shards.waiting_is_whole,
    held_by_handlers.rows AS leased, (SELECT count(*) FROM leased) < CAST(:at_most AS bigint) AS leased_is_whole,
    held_by_handlers.run_out AS leases_run_out,
    parked.rows AS parked, parked.held, moved.rows AS moved,
    CAST(EXTRACT(epoch FROM statement_timestamp() - LEAST(shards.ready_since, shards.due_since)) AS float8)
        AS oldest_seconds,
    CAST(EXTRACT(epoch FROM shards.next_due - statement_timestamp()) AS float8) AS next_due_seconds
FROM unnest(CAST(:queues AS text[])) AS given (queue)
CROSS JOIN LATERAL (
    SELECT
        CAST(sum(ready.rows) AS bigint) AS ready, bool_and(ready.rows < CAST(:at_most AS bigint)) AS ready_is_whole,
        CAST(sum(due.rows) AS bigint) AS due, bool_and(due.rows < CAST(:at_most AS bigint)) AS due_is_whole,
        CAST(sum(waiting.timers) AS bigint) AS timers, CAST(sum(waiting.retries) AS bigint) AS retries,
        bool_and(waiting.timers + waiting.retries < CAST(:at_most AS bigint)) AS waiting_is_whole,
        min(first.created_at) AS ready_since, min(due.since) AS due_since, min(waiting.next_due) AS next_due
    FROM generate_series(0, CAST(:shards AS integer) - 1) AS shard (number)
    CROSS JOIN LATERAL (
        SELECT count(*) AS rows
        FROM (
            SELECT FROM {table}
            WHERE queue = given.queue AND shard BETWEEN shard.number AND shard.number
              AND next_attempt_at IS NULL AND failed_at IS NULL
            ORDER BY shard, id
            LIMIT CAST(:at_most AS bigint)
        ) AS counted
    ) AS ready
    LEFT JOIN LATERAL (
        SELECT created_at
        FROM {table}
        WHERE queue = given.queue AND shard BETWEEN shard.number AND shard.number
          AND next_attempt_at IS NULL AND failed_at IS NULL
        ORDER BY shard, id
        LIMIT 1
    ) AS first ON true
    CROSS JOIN LATERAL (
        SELECT count(*) AS rows, min(next_attempt_at) AS since
        FROM (
            SELECT next_attempt_at
            FROM {table}
            WHERE queue = given.queue AND shard = shard.number
              AND next_attempt_at <= statement_timestamp() AND acquired_token IS NULL AND failed_at IS NULL
            ORDER BY next_attempt_at
            LIMIT CAST(:at_most AS bigint)
        ) AS counted
    ) AS due
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE last_attempt_at IS NULL) AS timers,
            count(*) FILTER (WHERE last_attempt_at IS NOT NULL) AS retries,
            min(next_attempt_at) FILTER (WHERE next_attempt_at < 'infinity') AS next_due
        FROM (
            SELECT next_attempt_at, last_attempt_at
            FROM {table}
            WHERE queue = given.queue AND shard = shard.number
              AND next_attempt_at > statement_timestamp() AND acquired_token IS NULL AND failed_at IS NULL
            ORDER BY next_attempt_at
            LIMIT CAST(:at_most AS bigint)
        ) AS counted
    ) AS waiting
) AS shards
CROSS JOIN LATERAL (
    SELECT count(*) AS rows, count(*) FILTER (WHERE next_attempt_at < statement_timestamp()) AS run_out
    FROM leased
    WHERE leased.queue = given.queue
) AS held_by_handlers
CROSS JOIN LATERAL (
    SELECT count(*) AS rows, count(*) FILTER (WHERE next_attempt_at IS NOT NULL) AS held
    FROM (
        SELECT next_attempt_at
        FROM {table}
        WHERE queue = given.queue AND failed_at IS NOT NULL
        ORDER BY queue, failed_at
        LIMIT CAST(:at_most AS bigint)
    ) AS counted
) AS parked
CROSS JOIN LATERAL (
    SELECT count(*) AS rows
    FROM (
        SELECT FROM {moved_letters} AS letter
        WHERE queue = given.queue
        LIMIT CAST(:at_most AS bigint)
    ) AS counted
) AS moved
WHERE {planned_anew}
ORDER BY given.queue

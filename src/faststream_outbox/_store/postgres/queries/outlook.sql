-- Which of these queues have a ready row, and how long until the first waiting row of each is due. Queues without either
-- are left out: a process asks for all that it consumes, and most of them are empty. Each shard is looked at from its
-- floor on. The looks are scalar subqueries with an order, for reasons told in docs/inside/plans.md. MATERIALIZED keeps
-- the condition at the end from running them once more.
WITH looked AS MATERIALIZED (
    SELECT wanted.queue,
        (
            SELECT true
            FROM {table}
            WHERE queue = wanted.queue AND (shard, id) >= (wanted.shard, {floor}) AND shard <= wanted.shard
              AND next_attempt_at IS NULL AND failed_at IS NULL
            ORDER BY shard, id
            LIMIT 1
        ) AS is_ready,
        (
            SELECT next_attempt_at
            FROM {table}
            WHERE queue = wanted.queue AND shard = wanted.shard
              AND next_attempt_at IS NOT NULL AND acquired_token IS NULL AND failed_at IS NULL
            ORDER BY next_attempt_at
            LIMIT 1
        ) AS due_at
    FROM unnest(CAST(:queues AS text[]), CAST(:shards AS smallint[]), CAST(:floors AS bigint[]))
        AS wanted(queue, shard, floor)
)
SELECT queue, COALESCE(bool_or(is_ready), false),
    CAST(EXTRACT(epoch FROM min(due_at) - statement_timestamp()) AS float8)
FROM looked
WHERE {planned_anew} AND (is_ready OR due_at IS NOT NULL)
GROUP BY queue

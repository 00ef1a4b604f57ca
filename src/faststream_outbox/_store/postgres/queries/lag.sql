-- How many rows of these shards could be taken now, and for how many seconds the one that waits longest could have been:
-- a ready row since it was published, a due one since its time came. The first ready row of a shard is its oldest.
-- :at_most of each kind and shard are counted; NULL counts all.
SELECT COALESCE(CAST(sum(ready.rows + due.rows) AS bigint), 0),
    CAST(EXTRACT(epoch FROM statement_timestamp() - min(LEAST(first.created_at, due.since))) AS float8)
FROM unnest(CAST(:queues AS text[]), CAST(:shards AS smallint[])) AS wanted(queue, shard)
CROSS JOIN LATERAL (
    SELECT count(*) AS rows
    FROM (
        SELECT 1
        FROM {table}
        WHERE queue = wanted.queue AND shard BETWEEN wanted.shard AND wanted.shard
          AND next_attempt_at IS NULL AND failed_at IS NULL
        LIMIT CAST(:at_most AS bigint)
    ) AS counted
) AS ready
CROSS JOIN LATERAL (
    SELECT count(*) AS rows, min(next_attempt_at) AS since
    FROM (
        SELECT next_attempt_at
        FROM {table}
        WHERE queue = wanted.queue AND shard = wanted.shard
          AND next_attempt_at <= statement_timestamp() AND acquired_token IS NULL AND failed_at IS NULL
        ORDER BY next_attempt_at
        LIMIT CAST(:at_most AS bigint)
    ) AS counted
) AS due
LEFT JOIN LATERAL (
    SELECT created_at
    FROM {table}
    WHERE queue = wanted.queue AND shard BETWEEN wanted.shard AND wanted.shard
      AND next_attempt_at IS NULL AND failed_at IS NULL
    ORDER BY shard, id
    LIMIT 1
) AS first ON true
WHERE {planned_anew}

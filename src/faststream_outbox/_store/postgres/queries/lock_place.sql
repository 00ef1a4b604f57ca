-- The first place that has work and no other taker. The lock goes with the transaction. It needs a statement of its
-- own: only the next statement's snapshot is sure to see what the previous taker of the place has written.
-- CASE keeps the lock from being tried before the look, and no ORDER BY keeps LIMIT lazy: at most one lock is taken.
-- The rest of the transaction is planned without sequential scans (set_config), and this statement is planned anew
-- each time (see docs/architecture.md, "Plans"): a plan made while the table was empty would read all of it when it
-- is full.
SELECT place.queue, place.shard, set_config('enable_seqscan', 'off', true)
FROM generate_series(1, CAST(:replan AS integer)) AS replan
CROSS JOIN unnest(CAST(:queues AS text[]), CAST(:shards AS smallint[])) AS place(queue, shard)
WHERE CASE
    WHEN EXISTS (
        SELECT FROM {table}
        WHERE queue = place.queue AND shard = place.shard AND next_attempt_at IS NULL AND failed_at IS NULL
    ) OR EXISTS (
        SELECT FROM {table}
        WHERE queue = place.queue AND shard = place.shard
          AND next_attempt_at <= statement_timestamp() AND acquired_token IS NULL AND failed_at IS NULL
    )
    THEN pg_try_advisory_xact_lock(hashtextextended(:scope || place.queue, place.shard))
    ELSE false
END
LIMIT 1

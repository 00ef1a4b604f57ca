-- Lease rows to a handler's process: half of them are rows whose time has come, half are ready ones. Neither waits for the
-- end of the other; what one does not use the other gets. Places are walked in the given order and the LIMITs stop the walk
-- early, so a claim touches as many rows as it takes, and half as many again where both kinds have piled up. SKIP LOCKED
-- keeps claimers apart. The comparison of pairs starts at the floor, and pins the index: see docs/plans.md.
WITH due AS MATERIALIZED (
    SELECT row.id
    FROM unnest(CAST(:queues AS text[]), CAST(:shards AS smallint[])) AS place(queue, shard)
    CROSS JOIN LATERAL (
        SELECT id
        FROM {table}
        WHERE queue = place.queue AND shard = place.shard
          AND next_attempt_at <= statement_timestamp() AND acquired_token IS NULL AND failed_at IS NULL
        ORDER BY next_attempt_at
        LIMIT CAST(:limit AS integer)
        FOR UPDATE SKIP LOCKED
    ) AS row
    LIMIT CAST(:limit AS integer)
),
ready AS MATERIALIZED (
    SELECT row.id
    FROM unnest(CAST(:queues AS text[]), CAST(:shards AS smallint[]), CAST(:floors AS bigint[]))
        AS place(queue, shard, floor)
    CROSS JOIN LATERAL (
        SELECT id
        FROM {table}
        WHERE queue = place.queue AND (shard, id) >= (place.shard, {floor}) AND shard <= place.shard
          AND next_attempt_at IS NULL AND failed_at IS NULL
        ORDER BY shard, id
        LIMIT CAST(:limit AS integer)
        FOR UPDATE SKIP LOCKED
    ) AS row
    LIMIT CAST(:limit AS integer) - LEAST((SELECT count(*) FROM due), CAST(:due_share AS integer))
)
UPDATE {table} AS o
SET acquired_token = :token,
    acquired_at = statement_timestamp(),
    next_attempt_at = statement_timestamp() + make_interval(secs => CAST(:lease_seconds AS float8)),
    -- A count that SQL has written can be the largest there is.
    deliveries_count = LEAST(o.deliveries_count, 2147483646) + 1
WHERE {planned_anew} AND o.id = ANY (ARRAY(
    SELECT id FROM ready UNION ALL (SELECT id FROM due LIMIT CAST(:limit AS integer) - (SELECT count(*) FROM ready))
))
RETURNING id, queue, key, idempotency_key, payload, {headers}, attempts_count, deliveries_count,
    {created_at}, {first_attempt_at}, {last_attempt_at}, acquired_at, timer_id

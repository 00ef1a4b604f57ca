-- Lease rows to a handler's process, in turns: a row whose time has come, then a ready one. Neither kind waits for the end
-- of the other; what one does not use the other gets. Shards are walked in the given order and the LIMITs stop the walk
-- early, so a claim touches as many rows as it takes, and half as many again where both kinds have piled up. SKIP LOCKED
-- keeps claimers apart. The comparison of pairs starts at the floor, and pins the index: see docs/inside/plans.md.
-- Sizes are read as in take.sql. Rows that are left out for their bytes stay as they are.
WITH due AS MATERIALIZED (
    SELECT row.id, row.bytes
    FROM unnest(CAST(:queues AS text[]), CAST(:shards AS smallint[])) AS wanted(queue, shard)
    CROSS JOIN LATERAL (
        SELECT id, octet_length(payload) + pg_column_size(headers) AS bytes
        FROM {table}
        WHERE queue = wanted.queue AND shard = wanted.shard
          AND next_attempt_at <= statement_timestamp() AND acquired_token IS NULL AND failed_at IS NULL{not_paused}
        ORDER BY next_attempt_at
        LIMIT CAST(:limit AS integer)
        FOR UPDATE SKIP LOCKED
    ) AS row
    LIMIT CAST(:limit AS integer)
),
ready AS MATERIALIZED (
    SELECT row.id, row.bytes
    FROM unnest(CAST(:queues AS text[]), CAST(:shards AS smallint[]), CAST(:floors AS bigint[]))
        AS wanted(queue, shard, floor)
    CROSS JOIN LATERAL (
        SELECT id, octet_length(payload) + pg_column_size(headers) AS bytes
        FROM {table}
        WHERE queue = wanted.queue AND (shard, id) >= (wanted.shard, {floor}) AND shard <= wanted.shard
          AND next_attempt_at IS NULL AND failed_at IS NULL{not_paused}
        ORDER BY shard, id
        LIMIT CAST(:limit AS integer)
        FOR UPDATE SKIP LOCKED
    ) AS row
    LIMIT CAST(:limit AS integer) - LEAST((SELECT count(*) FROM due), CAST(:due_share AS integer))
),
sized AS MATERIALIZED (
    SELECT id, row_number() OVER in_turn AS turn, sum(bytes) OVER in_turn AS bytes
    FROM (
        SELECT id, bytes, 2 * row_number() OVER () - CAST(CAST(:due_first AS boolean) AS integer) AS rank
        FROM due
        UNION ALL
        SELECT id, bytes, 2 * row_number() OVER () - CAST(NOT CAST(:due_first AS boolean) AS integer)
        FROM ready
    ) AS found
    WINDOW in_turn AS (ORDER BY rank ROWS UNBOUNDED PRECEDING)
)
UPDATE {table} AS o
SET acquired_token = :token,
    acquired_at = statement_timestamp(),
    next_attempt_at = statement_timestamp() + make_interval(secs => CAST(:lease_seconds AS float8)),
    -- A count that SQL has written can be the largest there is.
    deliveries_count = LEAST(o.deliveries_count, 2147483646) + 1
WHERE {planned_anew}
  AND o.id = ANY (ARRAY(
      SELECT sized.id FROM sized WHERE turn = 1 OR (turn <= CAST(:limit AS integer) AND bytes <= CAST(:max_bytes AS bigint))
  ))
RETURNING id, queue, key, idempotency_key, payload, {headers}, attempts_count, deliveries_count,
    {created_at}, {first_attempt_at}, {last_attempt_at}, acquired_at, timer_id,
    (SELECT max(bytes) FROM sized WHERE turn <= CAST(:limit AS integer)) > CAST(:max_bytes AS bigint) AS is_cut

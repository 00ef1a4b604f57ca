-- Make dead letters of one table ordinary rows again, in one statement: each is always in just one place. They keep identity, bytes,
-- headers and the time of publishing; a new id puts them behind what already waits. One that a live row of its queue
-- stands for (same idempotency key or timer id) stays, and so does the later of two that would stand for one another. So
-- does one that the table refuses, from before it had its checks.
-- Scalar subqueries go by their index for each dead letter; see docs/inside/plans.md. Those that leave are found by where they
-- stand, since ids may be there twice; IS TRUE has the planner look them up in a hash, also where it expects but a few.
WITH chosen AS MATERIALIZED (
    SELECT d.ctid AS at, d.tableoid AS part, d.id, d.failed_at, d.queue, CASE WHEN d.deduplicate THEN d.idempotency_key END AS identity, d.timer_id
    FROM {letters} AS d
    WHERE {selected} AND {meant} AND COALESCE({checks}, true)
      AND (NOT d.deduplicate OR (
          SELECT id FROM {table} AS live
          WHERE live.queue = d.queue AND live.idempotency_key = d.idempotency_key
            AND live.deduplicate AND live.failed_at IS NULL
          LIMIT 1
      ) IS NULL)
      AND (d.timer_id IS NULL OR (
          SELECT id FROM {table} AS live
          WHERE live.queue = d.queue AND live.timer_id = d.timer_id AND live.failed_at IS NULL
          LIMIT 1
      ) IS NULL)
    ORDER BY d.id, d.failed_at
    LIMIT CAST(:limit AS integer)
    FOR UPDATE OF d SKIP LOCKED
),
ranked AS (
    SELECT
        at, part, id, identity, timer_id,
        row_number() OVER (PARTITION BY queue, identity ORDER BY id, failed_at) AS of_identity,
        row_number() OVER (PARTITION BY queue, timer_id ORDER BY id, failed_at) AS of_timer
    FROM chosen
),
leaving AS (
    SELECT at, part, id
    FROM ranked
    WHERE (identity IS NULL OR of_identity = 1) AND (timer_id IS NULL OR of_timer = 1)
),
gone AS (
    DELETE FROM {dead_table}
    WHERE ctid = ANY (ARRAY(SELECT at FROM leaving)) AND ((id, tableoid) IN (SELECT id, part FROM leaving)) IS TRUE
    RETURNING id, failed_at, queue, key, idempotency_key, deduplicate, payload, headers, timer_id, created_at
),
back AS (
    INSERT INTO {table} (queue, key, idempotency_key, deduplicate, payload, headers, timer_id, created_at)
    SELECT queue, key, idempotency_key, deduplicate, payload, headers, timer_id, created_at
    FROM gone
    ORDER BY id, failed_at
    RETURNING id, queue
)
SELECT id, pg_notify(CAST(:channel AS text), queue) FROM back ORDER BY id

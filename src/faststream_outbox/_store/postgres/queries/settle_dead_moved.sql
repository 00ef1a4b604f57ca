-- The row failed for good and moves to the dead letters, in one statement: it is always in just one of the two tables.
WITH s AS MATERIALIZED (
    SELECT id, delivery, CAST(:token AS text) AS token, reason, exception
    FROM unnest(
        CAST(:ids AS bigint[]), CAST(:deliveries AS integer[]), CAST(:reasons AS text[]), CAST(:exceptions AS text[])
    ) AS u(id, delivery, reason, exception)
),
gone AS (
    DELETE FROM {table} AS o
    USING s
    WHERE {planned_anew} AND o.id = ANY (ARRAY(SELECT id FROM s))
      AND o.id = s.id AND o.deliveries_count = s.delivery AND o.acquired_token IS NOT DISTINCT FROM s.token
    RETURNING o.*, s.reason, s.exception
)
INSERT INTO {dlq_table}
    ({column}id, queue, key, idempotency_key, deduplicate, payload, headers, attempts_count, deliveries_count, created_at,
     first_attempt_at, last_attempt_at, timer_id, failed_at, failure_reason, last_exception)
SELECT
    {value}id, queue, key, idempotency_key, deduplicate, payload, headers, attempts_count + 1, deliveries_count, created_at,
    COALESCE(first_attempt_at, statement_timestamp()), statement_timestamp(), timer_id, statement_timestamp(), reason,
    exception
FROM gone

-- The row is given back at once: it is due, since looks for ready ones may begin behind it. A delivery that no handler
-- began is not counted.
WITH s AS MATERIALIZED (
    SELECT id, delivery, CAST(:token AS text) AS token, started
    FROM unnest(CAST(:ids AS bigint[]), CAST(:deliveries AS integer[]), CAST(:started AS boolean[]))
        AS u(id, delivery, started)
)
UPDATE {table} AS o
SET deliveries_count = o.deliveries_count - CASE WHEN s.started THEN 0 ELSE 1 END,
    next_attempt_at = LEAST(o.created_at, statement_timestamp()),
    acquired_token = NULL,
    acquired_at = NULL
FROM s
WHERE {planned_anew} AND o.id = ANY (ARRAY(SELECT id FROM s))
  AND o.id = s.id AND o.deliveries_count = s.delivery AND o.acquired_token IS NOT DISTINCT FROM s.token

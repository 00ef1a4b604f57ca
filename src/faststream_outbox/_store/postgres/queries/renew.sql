-- Prolong leases that are still held.
WITH s AS MATERIALIZED (
    SELECT id, delivery, CAST(:token AS text) AS token
    FROM unnest(CAST(:ids AS bigint[]), CAST(:deliveries AS integer[])) AS u(id, delivery)
)
UPDATE {table} AS o
SET next_attempt_at = statement_timestamp() + make_interval(secs => CAST(:lease_seconds AS float8))
FROM s
WHERE {planned_anew} AND o.id = ANY (ARRAY(SELECT id FROM s))
  AND o.id = s.id AND o.deliveries_count = s.delivery AND o.acquired_token IS NOT DISTINCT FROM s.token
RETURNING o.id

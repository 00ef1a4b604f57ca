-- Prolong leases that are still held.
UPDATE {table} AS o
SET next_attempt_at = statement_timestamp() + make_interval(secs => CAST(:lease_seconds AS float8))
FROM unnest(CAST(:ids AS bigint[]), CAST(:deliveries AS integer[])) AS s(id, delivery)
WHERE o.id = ANY (CAST(:ids AS bigint[])) AND o.id = s.id AND o.deliveries_count = s.delivery AND o.acquired_token = CAST(:token AS text)
RETURNING o.id

-- The row is given back at once. A delivery that no handler began is not counted.
UPDATE {table} AS o
SET deliveries_count = o.deliveries_count - CASE WHEN s.started THEN 0 ELSE 1 END,
    next_attempt_at = NULL,
    acquired_token = NULL,
    acquired_at = NULL
FROM unnest(
    CAST(:ids AS bigint[]), CAST(:deliveries AS integer[]), CAST(:started AS boolean[])
) AS s(id, delivery, started)
WHERE o.id = ANY (CAST(:ids AS bigint[])) AND o.id = s.id AND o.deliveries_count = s.delivery AND o.acquired_token IS NOT DISTINCT FROM CAST(:token AS text)

-- The work is done. The fence (token and delivery) makes a stale holder's write match nothing.
DELETE FROM {table} AS o
USING unnest(CAST(:ids AS bigint[]), CAST(:deliveries AS integer[])) AS s(id, delivery)
WHERE o.id = ANY (CAST(:ids AS bigint[])) AND o.id = s.id AND o.deliveries_count = s.delivery AND o.acquired_token IS NOT DISTINCT FROM CAST(:token AS text)

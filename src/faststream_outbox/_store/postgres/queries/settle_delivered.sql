-- The work is done. The fence (token and delivery) makes a stale holder's write match nothing.
WITH s AS MATERIALIZED (
    SELECT id, delivery, CAST(:token AS text) AS token
    FROM unnest(CAST(:ids AS bigint[]), CAST(:deliveries AS integer[])) AS u(id, delivery)
)
DELETE FROM {table} AS o
USING s
WHERE {planned_anew} AND o.id = ANY (ARRAY(SELECT id FROM s))
  AND o.id = s.id AND o.deliveries_count = s.delivery AND o.acquired_token IS NOT DISTINCT FROM s.token

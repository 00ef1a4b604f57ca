-- The work is done, and the positions of its shards move with it: both or neither. Where a shard's token is not the one that
-- its holder has written, somebody else has written since, and no row goes.
WITH s AS MATERIALIZED (
    SELECT id, delivery, CAST(:token AS text) AS token
    FROM unnest(CAST(:ids AS bigint[]), CAST(:deliveries AS integer[])) AS u(id, delivery)
),
{moves}
DELETE FROM {table} AS o
USING s
WHERE {planned_anew} AND o.id = ANY (ARRAY(SELECT id FROM s))
  AND o.id = s.id AND o.deliveries_count = s.delivery AND o.acquired_token IS NOT DISTINCT FROM s.token
  AND (SELECT count(*) FROM held) = CAST(:held AS bigint) AND (SELECT count(*) FROM moved) = CAST(:moved AS bigint)

-- The work is done, and the positions of its shards move with it: both or neither. Where a shard's token is not the one that
-- its holder has written, somebody else has written since, and no row goes.
WITH s AS MATERIALIZED (
    SELECT id, delivery, CAST(:token AS text) AS token
    FROM unnest(CAST(:ids AS bigint[]), CAST(:deliveries AS integer[])) AS u(id, delivery)
),
held AS (
    UPDATE {position_table} AS p
    SET token = u.new_token, written_at = statement_timestamp()
    FROM unnest(
        CAST(:moved_queues AS text[]), CAST(:moved_shards AS smallint[]),
        CAST(:tokens AS bigint[]), CAST(:new_tokens AS bigint[])
    ) AS u(queue, shard, token, new_token)
    WHERE p.outbox = {origin} AND p.forwarder = CAST(:forwarder AS text)
      AND p.queue = u.queue AND p.shard = u.shard AND p.topic = '' AND p.partition = -1
      AND p.token = u.token
    RETURNING p.shard
),
moved AS (
    UPDATE {position_table} AS p
    SET next_sequence = u.next_sequence, last_offset = u.last_offset, written_at = statement_timestamp()
    FROM unnest(
        CAST(:part_queues AS text[]), CAST(:part_shards AS smallint[]), CAST(:topics AS text[]),
        CAST(:partitions AS integer[]), CAST(:next_sequences AS integer[]), CAST(:last_offsets AS bigint[])
    ) AS u(queue, shard, topic, partition, next_sequence, last_offset)
    WHERE p.outbox = {origin} AND p.forwarder = CAST(:forwarder AS text)
      AND p.queue = u.queue AND p.shard = u.shard AND p.topic = u.topic AND p.partition = u.partition
    RETURNING p.shard
)
DELETE FROM {table} AS o
USING s
WHERE {planned_anew} AND o.id = ANY (ARRAY(SELECT id FROM s))
  AND o.id = s.id AND o.deliveries_count = s.delivery AND o.acquired_token IS NOT DISTINCT FROM s.token
  AND (SELECT count(*) FROM held) = CAST(:held AS bigint) AND (SELECT count(*) FROM moved) = CAST(:moved AS bigint)

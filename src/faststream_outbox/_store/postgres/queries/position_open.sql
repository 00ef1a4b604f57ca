-- Begin partitions of shards, while this process is the one that has written them last: the locks keep another one from
-- taking them over unseen.
INSERT INTO {position_table} AS p (outbox, forwarder, queue, shard, topic, partition, next_sequence, last_offset)
SELECT held.outbox, held.forwarder, held.queue, held.shard, u.topic, u.partition, 0, u.last_offset
FROM (
    SELECT p.outbox, p.forwarder, p.queue, p.shard
    FROM {position_table} AS p
    JOIN unnest(CAST(:queues AS text[]), CAST(:shards AS smallint[]), CAST(:tokens AS bigint[]))
        AS expected(queue, shard, token) ON p.queue = expected.queue AND p.shard = expected.shard
    WHERE {planned_anew} AND p.outbox = {origin} AND p.forwarder = CAST(:forwarder AS text)
      AND p.topic = '' AND p.partition = -1
      AND p.token = expected.token
    FOR UPDATE OF p
) AS held
JOIN unnest(
    CAST(:part_queues AS text[]), CAST(:part_shards AS smallint[]), CAST(:topics AS text[]),
    CAST(:partitions AS integer[]), CAST(:last_offsets AS bigint[])
) AS u(queue, shard, topic, partition, last_offset) ON u.queue = held.queue AND u.shard = held.shard
ON CONFLICT DO NOTHING
RETURNING p.queue, p.shard, p.topic, p.partition

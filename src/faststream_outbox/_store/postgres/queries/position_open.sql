-- Begin partitions of a shard, while this process is the one that has written last: the lock keeps another one from taking
-- it over unseen.
INSERT INTO {position_table} AS p (outbox, forwarder, queue, shard, topic, partition, next_sequence, last_offset)
SELECT held.outbox, held.forwarder, held.queue, held.shard, u.topic, u.partition, 0, u.last_offset
FROM (
    SELECT outbox, forwarder, queue, shard
    FROM {position_table} AS p
    WHERE {planned_anew} AND p.outbox = {origin} AND p.forwarder = CAST(:forwarder AS text)
      AND p.queue = CAST(:queue AS text) AND p.shard = CAST(:shard AS smallint) AND p.topic = '' AND p.partition = -1
      AND p.token = CAST(:token AS bigint)
    FOR UPDATE
) AS held
CROSS JOIN unnest(CAST(:topics AS text[]), CAST(:partitions AS integer[]), CAST(:last_offsets AS bigint[]))
    AS u(topic, partition, last_offset)
ON CONFLICT DO NOTHING
RETURNING p.topic, p.partition

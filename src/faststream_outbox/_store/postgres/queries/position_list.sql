-- Where shards stand. It must be a statement behind the one that takes them over: only then it sees all that others have
-- written before.
SELECT p.queue, p.shard, p.topic, p.partition, p.next_sequence, p.last_offset
FROM {position_table} AS p
JOIN unnest(CAST(:queues AS text[]), CAST(:shards AS smallint[])) AS u(queue, shard)
    ON p.queue = u.queue AND p.shard = u.shard
WHERE {planned_anew} AND p.outbox = {origin} AND p.forwarder = CAST(:forwarder AS text) AND p.topic <> ''

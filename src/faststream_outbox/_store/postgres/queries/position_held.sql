-- How many shards have these tokens, and how many of these positions are there.
SELECT
    (
        SELECT count(*)
        FROM {position_table} AS p
        JOIN unnest(CAST(:moved_queues AS text[]), CAST(:moved_shards AS smallint[]), CAST(:new_tokens AS bigint[]))
            AS u(queue, shard, token) ON p.queue = u.queue AND p.shard = u.shard AND p.token = u.token
        WHERE p.outbox = {origin} AND p.forwarder = CAST(:forwarder AS text) AND p.topic = '' AND p.partition = -1
    ),
    (
        SELECT count(*)
        FROM {position_table} AS p
        JOIN unnest(
            CAST(:part_queues AS text[]), CAST(:part_shards AS smallint[]), CAST(:topics AS text[]),
            CAST(:partitions AS integer[])
        ) AS u(queue, shard, topic, partition)
            ON p.queue = u.queue AND p.shard = u.shard AND p.topic = u.topic AND p.partition = u.partition
        WHERE p.outbox = {origin} AND p.forwarder = CAST(:forwarder AS text)
    )
WHERE {planned_anew}

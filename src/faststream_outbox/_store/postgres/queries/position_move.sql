-- The positions of shards, where the rows are settled by statements of their own.
WITH held AS (
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
SELECT {planned_anew} AND (SELECT count(*) FROM held) = CAST(:held AS bigint)
    AND (SELECT count(*) FROM moved) = CAST(:moved AS bigint)

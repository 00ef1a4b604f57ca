-- Take shards over from the process that has written last, if that is still the one that was seen.
UPDATE {position_table} AS p
SET token = u.token, written_at = statement_timestamp()
FROM unnest(
    CAST(:queues AS text[]), CAST(:shards AS smallint[]), CAST(:seen AS bigint[]), CAST(:tokens AS bigint[])
) AS u(queue, shard, seen, token)
WHERE {planned_anew} AND p.outbox = {origin} AND p.forwarder = CAST(:forwarder AS text)
  AND p.queue = u.queue AND p.shard = u.shard AND p.topic = '' AND p.partition = -1
  AND p.token = u.seen
RETURNING p.queue, p.shard, p.token, p.producer_id, p.producer_epoch

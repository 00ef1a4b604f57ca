-- How many shards have these tokens.
SELECT count(*)
FROM {position_table} AS p
JOIN unnest(CAST(:moved_queues AS text[]), CAST(:moved_shards AS smallint[]), CAST(:new_tokens AS bigint[]))
    AS u(queue, shard, token) ON p.queue = u.queue AND p.shard = u.shard AND p.token = u.token
WHERE {planned_anew} AND p.outbox = {origin} AND p.forwarder = CAST(:forwarder AS text)
  AND p.topic = '' AND p.partition = -1

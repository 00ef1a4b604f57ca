-- Begin shards that no process has had, if none was faster.
INSERT INTO {position_table} AS p (outbox, forwarder, queue, shard, token, producer_id, producer_epoch)
SELECT {origin}, CAST(:forwarder AS text), u.queue, u.shard, u.token, u.producer_id, u.producer_epoch
FROM unnest(
    CAST(:queues AS text[]), CAST(:shards AS smallint[]), CAST(:tokens AS bigint[]),
    CAST(:producer_ids AS bigint[]), CAST(:producer_epochs AS smallint[])
) AS u(queue, shard, token, producer_id, producer_epoch)
WHERE {planned_anew}
ON CONFLICT DO NOTHING
RETURNING p.queue, p.shard, p.token, p.producer_id, p.producer_epoch

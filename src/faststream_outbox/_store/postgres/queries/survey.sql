-- The first ready row of each shard from its floor on, whether or not it stands behind a waiting one, and which run of
-- which server says so.
SELECT wanted.queue, wanted.shard, (
    SELECT id
    FROM {table}
    WHERE queue = wanted.queue AND (shard, id) >= (wanted.shard, {floor}) AND shard <= wanted.shard
      AND next_attempt_at IS NULL AND failed_at IS NULL
    ORDER BY shard, id
    LIMIT 1
) AS first_id, pg_postmaster_start_time() AS started, pg_stat_get_bgwriter_stat_reset_time() AS recovered
FROM unnest(CAST(:queues AS text[]), CAST(:shards AS smallint[]), CAST(:floors AS bigint[])) AS wanted(queue, shard, floor)
WHERE {planned_anew}

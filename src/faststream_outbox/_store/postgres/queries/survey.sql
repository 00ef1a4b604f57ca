-- The first ready row of each place, whether or not it stands behind a waiting one, and which run of which server says so.
SELECT place.queue, place.shard, (
    SELECT id
    FROM {table}
    WHERE queue = place.queue AND shard BETWEEN place.shard AND place.shard
      AND next_attempt_at IS NULL AND failed_at IS NULL
    ORDER BY shard, id
    LIMIT 1
) AS first_id, pg_postmaster_start_time() AS server
FROM unnest(CAST(:queues AS text[]), CAST(:shards AS smallint[])) AS place(queue, shard)
WHERE {planned_anew}

-- Return the sessions that have locked shards with work, by either of their locks: lanes at work, and strangers, since any
-- role may take an advisory lock. Only a session's own user and members of pg_read_all_stats see since when its transaction
-- runs.
WITH held AS MATERIALIZED (
    SELECT classid, objid, pid, virtualtransaction
    FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT DISTINCT wanted.queue, wanted.shard, held.pid, held.virtualtransaction, activity.usename, activity.xact_start
FROM unnest(CAST(:queues AS text[]), CAST(:shards AS smallint[]), CAST(:floors AS bigint[])) AS wanted(queue, shard, floor)
CROSS JOIN LATERAL (
    VALUES (hashtextextended(:name_scope || wanted.queue, wanted.shard)),
        (hashtextextended('outbox ' || (SELECT {oid}) || '/' || wanted.queue, wanted.shard))
) AS lock(key)
JOIN held
    ON held.classid = CAST((lock.key >> 32) & 4294967295 AS oid) AND held.objid = CAST(lock.key & 4294967295 AS oid)
LEFT JOIN pg_stat_activity AS activity ON activity.pid = held.pid
WHERE {planned_anew} AND {has_work}

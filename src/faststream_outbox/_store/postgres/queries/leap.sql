-- For each shard in which a row waits that was tried before, or is held: up to which id all ready rows stand behind such
-- rows, and behind which. The look begins where that is known already, or at the first row behind one that waits no more.
-- The last id is not beyond :unborn, below which no row comes any more. Barriers are listed in the order of the first row
-- behind each, and :most of them. "+ 0" keeps the planner from walking through the primary key for the lowest id.
SELECT wanted.queue, wanted.shard, wanted.start, edge.id, barred.barrier, barred.first, barred.rows,
    pg_postmaster_start_time() AS started, pg_stat_get_bgwriter_stat_reset_time() AS recovered
FROM (
    SELECT queue, shard, {leap} AS start
    FROM {edges}
    OFFSET 0
) AS wanted
CROSS JOIN LATERAL (
    SELECT LEAST(CAST(:unborn AS bigint), (
        SELECT id
        FROM {table} AS o
        WHERE queue = wanted.queue AND (shard, id) >= (wanted.shard, wanted.start) AND shard <= wanted.shard
          AND next_attempt_at IS NULL AND failed_at IS NULL
          AND (key IS NULL OR NOT EXISTS (
              SELECT FROM {table} AS earlier
              WHERE earlier.queue = o.queue AND earlier.shard = o.shard AND earlier.key = o.key
                AND earlier.last_attempt_at IS NOT NULL AND earlier.next_attempt_at IS NOT NULL
                AND earlier.id < o.id
          ))
        ORDER BY shard, id
        LIMIT 1
    )) AS id
    OFFSET 0
) AS edge
LEFT JOIN LATERAL (
    SELECT barrier, min(id) AS first, count(*) AS rows
    FROM (
        SELECT id, (
            SELECT min(earlier.id + 0)
            FROM {table} AS earlier
            WHERE earlier.queue = o.queue AND earlier.shard = o.shard AND earlier.key = o.key
              AND earlier.last_attempt_at IS NOT NULL AND earlier.next_attempt_at IS NOT NULL
              AND earlier.id < o.id
        ) AS barrier
        FROM {table} AS o
        WHERE queue = wanted.queue AND (shard, id) >= (wanted.shard, wanted.start) AND (shard, id) < (wanted.shard, edge.id)
          AND next_attempt_at IS NULL AND failed_at IS NULL
        ORDER BY shard, id
        OFFSET 0
    ) AS behind
    GROUP BY barrier
    ORDER BY first
    LIMIT CAST(:most AS integer)
) AS barred ON true
WHERE {planned_anew} AND (
    SELECT true
    FROM {table}
    WHERE queue = wanted.queue AND shard BETWEEN wanted.shard AND wanted.shard
      AND key IS NOT NULL AND last_attempt_at IS NOT NULL AND next_attempt_at IS NOT NULL
    ORDER BY shard, key
    LIMIT 1
)
ORDER BY wanted.queue, wanted.shard, barred.first

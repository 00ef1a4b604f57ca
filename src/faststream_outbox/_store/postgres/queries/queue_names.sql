-- Return the names of queues that have rows or dead letters, in their order, beginning behind :behind. The statement skips
-- through the indexes from one name to the next, so its cost depends on the number of names and not on the number of
-- rows. Leased rows have no index by queue: of those, :at_most are looked at.
WITH RECURSIVE step AS (
    SELECT CAST(:behind AS text) AS queue, 0 AS number
    UNION ALL
    SELECT
        LEAST(
            (
                SELECT queue FROM {table}
                WHERE queue > step.queue AND next_attempt_at IS NULL AND failed_at IS NULL
                ORDER BY queue LIMIT 1
            ),
            (
                SELECT queue FROM {table}
                WHERE queue > step.queue
                  AND next_attempt_at IS NOT NULL AND acquired_token IS NULL AND failed_at IS NULL
                ORDER BY queue LIMIT 1
            ),
            (SELECT queue FROM {table} WHERE queue > step.queue AND failed_at IS NOT NULL ORDER BY queue LIMIT 1),
            (SELECT queue FROM {moved_letters} AS letter WHERE queue > step.queue ORDER BY queue LIMIT 1)
        ),
        number + 1
    FROM step
    WHERE step.queue IS NOT NULL AND number < CAST(:limit AS integer)
),
leased AS MATERIALIZED (
    SELECT queue FROM {table} WHERE acquired_token IS NOT NULL ORDER BY acquired_token LIMIT CAST(:at_most AS bigint)
)
SELECT queue FROM step WHERE number > 0 AND queue IS NOT NULL
UNION
SELECT queue FROM leased WHERE queue > CAST(:behind AS text)
ORDER BY queue
LIMIT CAST(:limit AS integer)

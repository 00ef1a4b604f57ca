-- Give back rows whose lease ran out, and rows of holders that were absent before and still are. A holder with a
-- presence keeps an advisory lock on its own connection; whoever can take that lock knows that the holder is gone.
WITH holders AS MATERIALIZED (
    SELECT DISTINCT acquired_token AS token
    FROM {table}
    WHERE acquired_token IS NOT NULL
),
absent AS MATERIALIZED (
    SELECT token
    FROM holders
    WHERE CASE
        WHEN starts_with(token, CAST(:presence_prefix AS text)) AND token <> CAST(:token AS text)
        THEN pg_try_advisory_xact_lock(hashtextextended(token, 0))
        ELSE false
    END
),
freed AS (
    UPDATE {table} AS o
    SET next_attempt_at = NULL, acquired_token = NULL, acquired_at = NULL
    FROM (
        SELECT id
        FROM {table}
        WHERE acquired_token IS NOT NULL
          AND (
              next_attempt_at <= statement_timestamp()
              OR (acquired_token = ANY (CAST(:suspects AS text[])) AND acquired_token IN (SELECT token FROM absent))
          )
        FOR UPDATE SKIP LOCKED
    ) AS stale
    WHERE o.id = stale.id
    RETURNING o.queue
)
SELECT 'absent' AS kind, token AS name FROM absent
UNION ALL
SELECT DISTINCT 'freed', queue FROM freed

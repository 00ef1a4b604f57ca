-- Release rows whose lease ran out, and rows of holders that were absent before and still are. A holder with a presence
-- keeps an advisory lock on its own connection; if this statement can take that lock, the holder is gone. Released rows are
-- due and not ready, since looks for ready rows may begin behind them. Rows with many deliveries are due later than others.
-- The statement skips through the index from one holder's token to the next, so its cost depends on the number of holders
-- and not on the planner's estimate of leased rows. A pass releases up to 1000 rows of each holder; the next pass goes on.
WITH RECURSIVE tokens AS (
    (
        SELECT acquired_token AS token
        FROM {table}
        WHERE acquired_token IS NOT NULL
        ORDER BY acquired_token
        LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT acquired_token
        FROM {table}
        WHERE acquired_token > tokens.token
        ORDER BY acquired_token
        LIMIT 1
    )
    FROM tokens
    WHERE tokens.token IS NOT NULL
),
holders AS MATERIALIZED (
    SELECT
        token,
        CASE
            WHEN starts_with(token, CAST(:presence_prefix AS text)) AND token <> CAST(:token AS text)
            THEN pg_try_advisory_xact_lock(hashtextextended(token, 0))
            ELSE false
        END AS absent
    FROM tokens
    WHERE token IS NOT NULL
),
stale AS MATERIALIZED (
    SELECT row.id
    FROM unnest(
        ARRAY(SELECT token FROM holders),
        ARRAY(
            SELECT CASE
                WHEN absent AND token = ANY (CAST(:suspects AS text[])) THEN 'infinity'
                ELSE statement_timestamp()
            END
            FROM holders
        )
    ) AS holder(token, until)
    CROSS JOIN LATERAL (
        SELECT id
        FROM {table}
        WHERE acquired_token = holder.token AND next_attempt_at <= holder.until
        ORDER BY next_attempt_at
        LIMIT 1000
        FOR UPDATE SKIP LOCKED
    ) AS row
),
freed AS (
    UPDATE {table} AS o
    SET next_attempt_at = CASE
            WHEN o.deliveries_count <= CAST(:at_once AS integer) THEN LEAST(o.created_at, statement_timestamp())
            ELSE statement_timestamp() + make_interval(
                secs => LEAST(CAST(:longest_rest AS float8), 2.0 ^ LEAST(o.deliveries_count - CAST(:at_once AS integer), 30))
            )
        END,
        acquired_token = NULL,
        acquired_at = NULL
    WHERE o.id = ANY (ARRAY(SELECT id FROM stale))
    RETURNING o.queue
)
SELECT 'absent' AS kind, token AS name FROM holders WHERE absent AND {planned_anew}
UNION ALL
SELECT DISTINCT 'freed', queue FROM freed

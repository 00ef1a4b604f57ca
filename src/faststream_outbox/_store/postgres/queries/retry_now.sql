-- Rows that were tried before, and wait for their next attempt, are due now. A timer has not been tried, and is none of them.
-- For people and tests: it may read all rows that wait.
WITH chosen AS MATERIALIZED (
    SELECT id
    FROM {table}
    WHERE {planned_anew}
      AND (CAST(:queue AS text) IS NULL OR queue = CAST(:queue AS text) OR starts_with(queue, CAST(:copies AS text)))
      AND next_attempt_at > statement_timestamp() AND last_attempt_at IS NOT NULL
      AND acquired_token IS NULL AND failed_at IS NULL
    LIMIT CAST(:limit AS integer)
    FOR UPDATE SKIP LOCKED
),
due AS (
    UPDATE {table}
    SET next_attempt_at = statement_timestamp()
    WHERE id = ANY (ARRAY(SELECT id FROM chosen))
    RETURNING queue
)
SELECT queue, count(*), pg_notify('outbox:' || {oid}, queue) FROM due GROUP BY queue

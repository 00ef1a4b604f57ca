-- The row failed for good and stays where it is, outside of every claim. One that holds its key gets a time that never
-- comes, by which ``take`` finds it like a row that waits for its retry.
WITH s AS MATERIALIZED (
    SELECT id, delivery, CAST(:token AS text) AS token, reason, exception, holds
    FROM unnest(
        CAST(:ids AS bigint[]), CAST(:deliveries AS integer[]), CAST(:reasons AS text[]), CAST(:exceptions AS text[]),
        CAST(:holds AS boolean[])
    ) AS u(id, delivery, reason, exception, holds)
)
UPDATE {table} AS o
SET attempts_count = o.attempts_count + 1,
    first_attempt_at = COALESCE(o.first_attempt_at, statement_timestamp()),
    last_attempt_at = statement_timestamp(),
    next_attempt_at = CASE WHEN s.holds THEN TIMESTAMPTZ 'infinity' END,
    failed_at = statement_timestamp(),
    failure_reason = s.reason,
    last_exception = s.exception,
    acquired_token = NULL,
    acquired_at = NULL
FROM s
WHERE {planned_anew} AND o.id = ANY (ARRAY(SELECT id FROM s))
  AND o.id = s.id AND o.deliveries_count = s.delivery AND o.acquired_token IS NOT DISTINCT FROM s.token

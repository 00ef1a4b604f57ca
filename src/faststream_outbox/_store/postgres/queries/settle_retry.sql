-- The attempt failed; the row waits.
UPDATE {table} AS o
SET attempts_count = o.attempts_count + 1,
    first_attempt_at = COALESCE(o.first_attempt_at, statement_timestamp()),
    last_attempt_at = statement_timestamp(),
    next_attempt_at = statement_timestamp() + make_interval(secs => s.delay),
    last_exception = s.exception,
    acquired_token = NULL,
    acquired_at = NULL
FROM unnest(
    CAST(:ids AS bigint[]), CAST(:deliveries AS integer[]), CAST(:delays AS float8[]), CAST(:exceptions AS text[])
) AS s(id, delivery, delay, exception)
WHERE o.id = ANY (CAST(:ids AS bigint[])) AND o.id = s.id AND o.deliveries_count = s.delivery AND o.acquired_token IS NOT DISTINCT FROM CAST(:token AS text)

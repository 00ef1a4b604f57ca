-- A part of the destination is down; the row waits for it, and no attempt is counted. A row that was not tried before is
-- stamped as if it had been: so it stands in the index of the rows that hold back the later ones of their key.
WITH s AS MATERIALIZED (
    SELECT id, delivery, CAST(:token AS text) AS token, delay, slot
    FROM unnest(
        CAST(:ids AS bigint[]), CAST(:deliveries AS integer[]), CAST(:delays AS float8[]), CAST(:slots AS bigint[])
    ) AS u(id, delivery, delay, slot)
)
UPDATE {table} AS o
SET last_attempt_at = COALESCE(o.last_attempt_at, statement_timestamp()),
    next_attempt_at = COALESCE(
        statement_timestamp() + make_interval(secs => s.delay),
        date_bin(
            INTERVAL '1 minute',
            statement_timestamp() + INTERVAL '30 seconds',
            TIMESTAMPTZ 'epoch' + s.slot * INTERVAL '1 microsecond'
        ) + INTERVAL '1 minute'
    ),
    acquired_token = NULL,
    acquired_at = NULL
FROM s
WHERE {planned_anew} AND o.id = ANY (ARRAY(SELECT id FROM s))
  AND o.id = s.id AND o.deliveries_count = s.delivery AND o.acquired_token IS NOT DISTINCT FROM s.token

-- Give back rows that a claim has leased without its answer having arrived: their holder does not know of them, and would
-- keep them from everyone until the lease runs out. No handler began, so the delivery is not counted. They are due, since
-- looks for ready rows may begin behind them.
UPDATE {table} AS o
SET deliveries_count = o.deliveries_count - 1,
    next_attempt_at = LEAST(o.created_at, statement_timestamp()),
    acquired_token = NULL,
    acquired_at = NULL
WHERE {planned_anew} AND o.id = ANY (ARRAY(
    SELECT id
    FROM {table}
    WHERE acquired_token = CAST(:token AS text)
      AND queue = ANY (CAST(:queues AS text[])) AND id <> ALL (CAST(:known AS bigint[]))
    FOR UPDATE SKIP LOCKED
))

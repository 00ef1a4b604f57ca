-- One message that takes the place of a live timer of its name: as if that were cancelled and this one published, in a
-- statement that concurrent ones cannot come between. It gets an id of its own, since consumers do not look below the ids
-- that they are done with. A timer that a handler has is looked for first: DO UPDATE would lock its row until the end of
-- the caller's transaction, and the handler's outcome would wait for that.
INSERT INTO {table} AS live (queue, key, idempotency_key, payload, headers, timer_id, next_attempt_at)
SELECT
    CAST(:queue AS text), CAST(:key AS text), CAST(:idempotency_key AS text), CAST(:payload AS bytea),
    CAST(CAST(:headers AS text) AS jsonb), CAST(:timer_id AS text),
    COALESCE(CAST(:activate_at AS timestamptz), statement_timestamp() + CAST(:activate_in AS interval))
WHERE {planned_anew} AND NOT EXISTS (
    SELECT FROM {table} AS taken
    WHERE taken.queue = CAST(:queue AS text) AND taken.timer_id = CAST(:timer_id AS text)
      AND (taken.acquired_token IS NOT NULL OR taken.failed_at IS NOT NULL)
)
ON CONFLICT (queue, timer_id) WHERE timer_id IS NOT NULL DO UPDATE
SET id = EXCLUDED.id, key = EXCLUDED.key, idempotency_key = EXCLUDED.idempotency_key, deduplicate = false,
    payload = EXCLUDED.payload, headers = EXCLUDED.headers, created_at = EXCLUDED.created_at,
    next_attempt_at = EXCLUDED.next_attempt_at, attempts_count = 0, deliveries_count = 0, first_attempt_at = NULL,
    last_attempt_at = NULL, last_exception = NULL
WHERE live.acquired_token IS NULL AND live.failed_at IS NULL
RETURNING id{notify}

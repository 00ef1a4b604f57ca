-- One message. The wake-up rides along; PostgreSQL sends equal ones of a transaction once, and only if it commits.
INSERT INTO {table}
    (queue, key, idempotency_key, deduplicate, payload, headers, timer_id, next_attempt_at)
VALUES (
    :queue, :key, :idempotency_key, :deduplicate, :payload, CAST(CAST(:headers AS text) AS jsonb), :timer_id,
    COALESCE(CAST(:activate_at AS timestamptz), statement_timestamp() + CAST(:activate_in AS interval))
)
{on_conflict}
RETURNING id{notify}

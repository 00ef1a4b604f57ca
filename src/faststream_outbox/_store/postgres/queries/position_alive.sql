-- Which of these messages are still in the outbox table, and are to be sent: a dead letter is not.
SELECT o.id, o.idempotency_key
FROM {table} AS o
JOIN unnest(CAST(:ids AS bigint[]), CAST(:idempotency_keys AS text[])) AS u(id, idempotency_key)
    ON o.id = u.id AND o.idempotency_key = u.idempotency_key
WHERE {planned_anew} AND o.id = ANY (CAST(:ids AS bigint[])) AND o.failed_at IS NULL

-- Look at rows that no consumer has finished, parked ones left out. Takes no lease and no lock. For people and
-- tests, not for loops: rows of one queue among many others are found by reading through all.
SELECT id, queue, key, idempotency_key, payload, {headers}, attempts_count, deliveries_count,
    {created_at}, {first_attempt_at}, {last_attempt_at}, {acquired_at}, timer_id
FROM {table}
WHERE {planned_anew} AND failed_at IS NULL AND (CAST(:queue AS text) IS NULL OR queue = CAST(:queue AS text))
ORDER BY id
LIMIT CAST(:limit AS integer)

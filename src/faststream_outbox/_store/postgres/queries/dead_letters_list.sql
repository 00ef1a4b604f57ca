-- Dead letters, the oldest first, with up to :max_bytes of each payload. Takes no lock.
SELECT id, queue, key, idempotency_key,
    substring(payload FOR CAST(:max_bytes AS integer)) AS payload, {headers}, attempts_count, deliveries_count,
    {created_at}, {first_attempt_at}, {last_attempt_at}, CAST(NULL AS timestamptz) AS acquired_at, timer_id,
    {failed_at}, failure_reason, last_exception, next_attempt_at IS NOT NULL AS holds_key,
    octet_length(payload) AS size
FROM {dead_letters} AS d
WHERE {selected}
ORDER BY d.failed_at, id
LIMIT CAST(:limit AS integer)

-- How many of the rows that an INSERT was to write are neither among those that it wrote nor live duplicates: something
-- else than the identity of a message was in the way. Without its message, a copy is not missed.
-- The look for a timer is no EXISTS, since PostgreSQL could read the whole table once for all messages to answer that.
WITH written AS MATERIALIZED (
    SELECT queue, idempotency_key FROM {table} WHERE id = ANY (CAST(:ids AS bigint[]))
)
SELECT count(*)
FROM unnest(
    CAST(:queues AS text[]), CAST(:origins AS text[]), CAST(:idempotency_keys AS text[]), CAST(:deduplicates AS boolean[]),
    CAST(:timer_ids AS text[])
) AS m(queue, origin, idempotency_key, deduplicate, timer_id)
WHERE {planned_anew}
  AND NOT EXISTS (SELECT FROM written AS w WHERE w.queue = m.queue AND w.idempotency_key = m.idempotency_key)
  AND (
    m.origin IS NULL
    OR EXISTS (SELECT FROM written AS w WHERE w.queue = m.origin AND w.idempotency_key = m.idempotency_key)
  )
  AND NOT (
    m.deduplicate
    AND EXISTS (
        SELECT FROM {table} AS t
        WHERE t.queue = m.queue AND t.idempotency_key = m.idempotency_key AND t.deduplicate
    )
  )
  AND NOT (
    m.timer_id IS NOT NULL
    AND COALESCE((SELECT true FROM {table} AS t WHERE t.queue = m.queue AND t.timer_id = m.timer_id LIMIT 1), false)
  )

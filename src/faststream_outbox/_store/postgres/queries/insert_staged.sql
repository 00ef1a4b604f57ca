-- Messages that a session has gathered, of any queues and each with its own options, in the order of the arrays. The
-- queue and the idempotency key of a row say which message it is of, where live duplicates are left out.
WITH own AS (
    INSERT INTO {table}
        (queue, key, idempotency_key, deduplicate, payload, headers, timer_id, next_attempt_at)
    SELECT
        m.queue, m.key, m.idempotency_key, m.deduplicate, m.payload, CAST(m.headers AS jsonb), m.timer_id,
        COALESCE(m.activate_at, statement_timestamp() + m.activate_in)
    FROM unnest(
        CAST(:queues AS text[]), CAST(:keys AS text[]), CAST(:idempotency_keys AS text[]),
        CAST(:deduplicates AS boolean[]), CAST(:payloads AS bytea[]), CAST(:headers AS text[]),
        CAST(:timer_ids AS text[]), CAST(:activate_ats AS timestamptz[]), CAST(:activate_ins AS interval[])
    ) WITH ORDINALITY AS m(
        queue, key, idempotency_key, deduplicate, payload, headers, timer_id, activate_at, activate_in, position
    )
    ORDER BY m.position
    {on_conflict}
    RETURNING id, queue, idempotency_key
),
woken AS (SELECT DISTINCT queue FROM own)
SELECT array_agg(id ORDER BY id), array_agg(queue ORDER BY id), array_agg(idempotency_key ORDER BY id){notify}
FROM own
HAVING count(*) > 0

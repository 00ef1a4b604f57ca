-- The messages of insert_staged, and a copy of each for every further consumer of its queue, in one statement. A message that
-- is a live duplicate gets no copies; a copy that is one is left out alone.
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
    RETURNING id, queue, key, idempotency_key, deduplicate, payload, headers, timer_id, next_attempt_at, created_at
),
copied AS (
    INSERT INTO {table}
        (queue, key, idempotency_key, deduplicate, payload, headers, timer_id, next_attempt_at, created_at)
    SELECT
        copy.queue, own.key, own.idempotency_key, own.deduplicate, own.payload, own.headers, own.timer_id,
        own.next_attempt_at, own.created_at
    FROM own JOIN unnest(CAST(:origins AS text[]), CAST(:copies AS text[])) AS copy(origin, queue)
        ON copy.origin = own.queue
    ORDER BY own.id
    {on_conflict}
    RETURNING id, queue
),
woken AS (SELECT queue FROM own UNION SELECT queue FROM copied)
SELECT
    array_agg(id ORDER BY id), array_agg(queue ORDER BY id), array_agg(idempotency_key ORDER BY id),
    (SELECT array_agg(id) FROM copied){notify}
FROM own
HAVING count(*) > 0

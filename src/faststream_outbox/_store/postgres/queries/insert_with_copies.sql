-- Messages of one queue, and a copy of each for every further consumer of the queue, in one statement. A message that is a
-- live duplicate gets no copies; a copy that is one is left out alone. Ids follow the order of the arrays. Headers are NULL
-- where they are those of the first message, as in insert_many.
WITH own AS (
    INSERT INTO {table}
        (queue, key, idempotency_key, deduplicate, payload, headers, timer_id, next_attempt_at)
    SELECT
        CAST(:queue AS text), m.key, m.idempotency_key, m.deduplicate, m.payload,
        COALESCE(CAST(m.headers AS jsonb), (SELECT CAST(CAST(:first_headers AS text) AS jsonb))),
        CAST(:timer_id AS text),
        COALESCE(CAST(:activate_at AS timestamptz), statement_timestamp() + CAST(:activate_in AS interval))
    FROM unnest(
        CAST(:keys AS text[]), CAST(:idempotency_keys AS text[]), CAST(:deduplicates AS boolean[]),
        CAST(:payloads AS bytea[]), CAST(:headers AS text[])
    ) WITH ORDINALITY AS m(key, idempotency_key, deduplicate, payload, headers, position)
    ORDER BY m.position
    {on_conflict}
    RETURNING id, key, idempotency_key, deduplicate, payload, headers, timer_id, next_attempt_at, created_at
),
copied AS (
    INSERT INTO {table}
        (queue, key, idempotency_key, deduplicate, payload, headers, timer_id, next_attempt_at, created_at)
    SELECT
        copy.queue, own.key, own.idempotency_key, own.deduplicate, own.payload, own.headers, own.timer_id,
        own.next_attempt_at, own.created_at
    FROM own CROSS JOIN unnest(CAST(:copies AS text[])) AS copy(queue)
    ORDER BY own.id
    {on_conflict}
    RETURNING id
)
SELECT written.ids, (SELECT array_agg(id) FROM copied){notify}
FROM (SELECT array_agg(id ORDER BY id) AS ids FROM own HAVING count(*) > 0) AS written
CROSS JOIN unnest(CAST(:copies AS text[]) || CAST(:queue AS text)) AS woken(queue)

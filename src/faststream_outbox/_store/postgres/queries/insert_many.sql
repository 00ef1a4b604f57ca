-- Many messages of one queue. Ids follow the order of the arrays. Headers are NULL where they are those of the first
-- message, which are read once: to parse the same JSON for each row would take a quarter of the statement's time.
WITH written AS (
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
    RETURNING id
)
SELECT array_agg(id ORDER BY id){notify} FROM written HAVING count(*) > 0

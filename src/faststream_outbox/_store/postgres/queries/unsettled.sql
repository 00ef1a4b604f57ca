-- Which of these rows are as they were: nobody has settled, parked or deleted them since.
WITH s AS MATERIALIZED (
    SELECT id, delivery, attempts
    FROM unnest(CAST(:ids AS bigint[]), CAST(:deliveries AS integer[]), CAST(:attempts AS integer[]))
        AS u(id, delivery, attempts)
)
SELECT o.id
FROM {table} AS o
JOIN s ON o.id = s.id AND o.deliveries_count = s.delivery AND o.attempts_count = s.attempts
WHERE {planned_anew} AND o.id = ANY (ARRAY(SELECT id FROM s)) AND o.failed_at IS NULL

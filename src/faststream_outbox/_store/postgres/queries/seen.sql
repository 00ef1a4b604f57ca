-- Look at rows of a queue in one state, the first of them first. Takes no lock and no lease. A payload is read up to :bytes.
-- What has an index by shard is looked for in each of them; else there is but one part.
SELECT row.id, row.queue, row.key, row.idempotency_key,
    substring(row.payload FROM 1 FOR CAST(:bytes AS integer)) AS payload,
    {headers}, attempts_count, deliveries_count, {created_at}, {first_attempt_at}, {last_attempt_at}, {acquired_at}, timer_id,
    octet_length(row.payload) AS size, {next_attempt_at}, last_exception
FROM generate_series(1, CAST(:parts AS integer)) AS part (number)
CROSS JOIN LATERAL (
    SELECT *
    FROM {table}
    WHERE queue = CAST(:queue AS text) AND {in_state}
    ORDER BY {in_order}
    LIMIT CAST(:limit AS integer)
) AS row
WHERE {planned_anew}
ORDER BY {first}
LIMIT CAST(:limit AS integer)

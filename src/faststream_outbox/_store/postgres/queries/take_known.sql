-- Rows of a locked shard by their ids, to write outcomes that are known: they may stand behind many others, and behind a
-- waiting row of their key, since none of them is sent. One that a stranger has locked is for another time.
SELECT id, queue, key, idempotency_key, payload, {headers}, attempts_count, deliveries_count,
    {created_at}, {first_attempt_at}, {last_attempt_at}, statement_timestamp() AS acquired_at, timer_id, shard, all_bytes
FROM (
    SELECT taken.*, row_number() OVER in_turn AS turn,
        sum(octet_length(payload) + pg_column_size(headers)) OVER in_turn AS bytes,
        sum(octet_length(payload) + pg_column_size(headers)) OVER () AS all_bytes
    FROM (
        SELECT id, queue, shard, key, idempotency_key, payload, headers, attempts_count, deliveries_count,
            created_at, first_attempt_at, last_attempt_at, timer_id
        FROM {table}
        WHERE id = ANY (CAST(:only AS bigint[])) AND queue = CAST(:queue AS text) AND shard = CAST(:shard AS smallint)
          AND acquired_token IS NULL AND failed_at IS NULL
          AND (next_attempt_at IS NULL OR next_attempt_at <= statement_timestamp())
        ORDER BY id
        LIMIT CAST(:limit AS integer)
        FOR UPDATE SKIP LOCKED
    ) AS taken
    WINDOW in_turn AS (ORDER BY id ROWS UNBOUNDED PRECEDING)
) AS sized
WHERE {planned_anew} AND (turn = 1 OR bytes <= CAST(:max_bytes AS bigint))
ORDER BY id

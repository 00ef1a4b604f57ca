-- The rows of locked shards. Each shard gives up to its share, in turns: a row whose time has come, in the order of these
-- times, then a ready one. Neither waits for the end of the other; what one does not use the other gets. Before both come
-- rows that a handler has given back: they are due, and ready rows of their key may stand behind them.
-- None is taken that stands behind a waiting row of its key. A row whose retry is due still holds back the later ones
-- until it is settled: the limit may have left it out. A held dead letter is such a row, with a time that never comes. A
-- timer (not tried yet) holds nothing back.
-- Ready rows are waited for, not skipped, where a stranger has locked one: skipped, it would be passed by the later ones
-- of its key. What a row has become by then is seen by the next statement only. So this one fails where a row is locked
-- (NOWAIT); then the same without NOWAIT waits, and this one looks again. The comparison of pairs starts at the floor, or
-- behind rows of which it is known that they stand behind waiting ones, and pins the index: see docs/inside/plans.md.
-- The patience that was set for the look ends here, once and when all rows are locked: what is answered is to be settled,
-- also behind a lock on the table.
SELECT id, queue, key, idempotency_key, payload, {headers}, attempts_count, deliveries_count,
    {created_at}, {first_attempt_at}, {last_attempt_at}, statement_timestamp() AS acquired_at, timer_id, shard, all_bytes,
    (SELECT set_config('lock_timeout', CAST(:lock_timeout AS text), true)){position_token}
FROM (
    -- Both sizes are read without fetching what is stored out of line; that of the headers is the stored one.
    SELECT taken.*{shard_token}, row_number() OVER in_turn AS turn,
        sum(octet_length(payload) + pg_column_size(headers)) OVER in_turn AS bytes,
        sum(octet_length(payload) + pg_column_size(headers)) OVER () AS all_bytes
    FROM {wanted}{of_position}
    CROSS JOIN LATERAL (
        WITH due AS MATERIALIZED (
            SELECT id, queue, shard, key, idempotency_key, payload, headers, attempts_count, deliveries_count,
                created_at, first_attempt_at, last_attempt_at, timer_id, next_attempt_at
            FROM {table} AS o
            WHERE queue = wanted.queue AND shard = wanted.shard
              AND next_attempt_at <= statement_timestamp() AND acquired_token IS NULL AND failed_at IS NULL
              AND {not_left_out}
              AND (key IS NULL OR NOT EXISTS (
                  SELECT FROM {table} AS earlier
                  WHERE earlier.queue = o.queue AND earlier.shard = o.shard AND earlier.key = o.key
                    AND earlier.last_attempt_at IS NOT NULL AND earlier.next_attempt_at IS NOT NULL
                    AND earlier.id < o.id
              ))
            ORDER BY next_attempt_at
            LIMIT CAST(:share AS integer)
            FOR UPDATE SKIP LOCKED
        ),
        ready AS MATERIALIZED (
            SELECT *
            FROM (
                SELECT id, queue, shard, key, idempotency_key, payload, headers, attempts_count, deliveries_count,
                    created_at, first_attempt_at, last_attempt_at, timer_id, next_attempt_at
                FROM {table} AS o
                WHERE queue = wanted.queue AND (shard, id) >= (wanted.shard, {start}) AND shard <= wanted.shard
                  AND next_attempt_at IS NULL AND failed_at IS NULL
                  AND {not_left_out}
                  AND (key IS NULL OR NOT EXISTS (
                      SELECT FROM {table} AS earlier
                      WHERE earlier.queue = o.queue AND earlier.shard = o.shard AND earlier.key = o.key
                        AND earlier.last_attempt_at IS NOT NULL AND earlier.next_attempt_at IS NOT NULL
                        AND earlier.id < o.id
                  ))
                ORDER BY shard, id
                LIMIT CAST(:share AS integer)
                FOR UPDATE{unless_locked}
            ) AS row
            LIMIT CAST(:share AS integer) - LEAST(
                (SELECT count(*) FROM due),
                GREATEST(CAST(:due_share AS integer), (SELECT count(*) FROM due WHERE {given_back}))
            )
        )
        SELECT *, CAST(:due_first AS boolean) AS is_first,
            CASE WHEN {given_back} THEN 0 ELSE row_number() OVER (PARTITION BY {given_back} ORDER BY next_attempt_at, id) END
                AS rank
        FROM due
        UNION ALL
        SELECT *, NOT CAST(:due_first AS boolean), row_number() OVER (ORDER BY id)
        FROM ready
        ORDER BY rank, is_first DESC
        LIMIT CAST(:share AS integer)
    ) AS taken
    WINDOW in_turn AS (ORDER BY rank, is_first DESC, next_attempt_at, id ROWS UNBOUNDED PRECEDING)
) AS sized
WHERE {planned_anew} AND (turn = 1 OR bytes <= CAST(:max_bytes AS bigint))
ORDER BY id

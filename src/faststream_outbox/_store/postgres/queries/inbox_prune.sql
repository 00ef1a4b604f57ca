-- Deletes a batch of a consumer's oldest entries, and returns how many, and the time of the last one. The next batch begins there: it
-- does not walk once more through what this one has deleted. What another transaction has locked is left to the next pass.
WITH pruned AS (
    DELETE FROM {table}
    WHERE ctid = ANY (ARRAY(
        SELECT ctid
        FROM {table}
        WHERE {planned_anew}
          AND consumer = CAST(:consumer AS text)
          AND accepted_at >= COALESCE(CAST(:since AS timestamptz), '-infinity')
          AND accepted_at < now() - CAST(:older_than AS interval)
        ORDER BY consumer, accepted_at
        LIMIT CAST(:limit AS bigint)
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING accepted_at
)
SELECT count(*), max(accepted_at)
FROM pruned

-- Delete dead letters for good. What one of them held back can be taken from now on.
DELETE FROM {dead_table}
WHERE id = ANY (ARRAY(
    SELECT d.id FROM {dead_table} AS d WHERE {selected} ORDER BY d.id LIMIT CAST(:limit AS integer) FOR UPDATE SKIP LOCKED
))
RETURNING id, pg_notify(CAST(:channel AS text), queue)

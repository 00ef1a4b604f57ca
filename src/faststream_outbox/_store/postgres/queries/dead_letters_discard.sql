-- Delete dead letters for good.
DELETE FROM {dead_table}
WHERE id = ANY (ARRAY(
    SELECT d.id FROM {dead_table} AS d WHERE {selected} ORDER BY d.id LIMIT CAST(:limit AS integer) FOR UPDATE SKIP LOCKED
))
RETURNING id

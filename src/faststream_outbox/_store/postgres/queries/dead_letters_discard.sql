-- Delete dead letters for good. What one of them held back can be taken from now on. They are found by where they stand,
-- since ids may be there twice; IS TRUE has the planner look them up in a hash, also where it expects but a few.
WITH chosen AS MATERIALIZED (
    SELECT d.ctid AS at, d.tableoid AS part, d.id
    FROM {letters} AS d
    WHERE {selected}
    ORDER BY d.id, d.failed_at
    LIMIT CAST(:limit AS integer)
    FOR UPDATE OF d SKIP LOCKED
)
DELETE FROM {dead_table}
WHERE ctid = ANY (ARRAY(SELECT at FROM chosen)) AND ((id, tableoid) IN (SELECT id, part FROM chosen)) IS TRUE
RETURNING id, pg_notify(CAST(:channel AS text), queue)

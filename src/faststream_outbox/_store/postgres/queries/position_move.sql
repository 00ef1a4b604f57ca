-- The positions of shards, where the rows are settled by statements of their own.
WITH {moves}
SELECT {planned_anew} AND (SELECT count(*) FROM held) = CAST(:held AS bigint)
    AND (SELECT count(*) FROM moved) = CAST(:moved AS bigint)

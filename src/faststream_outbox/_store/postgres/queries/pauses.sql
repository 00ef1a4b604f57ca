-- The pauses that are in force now. Every process asks this all the time: it reads the partial index alone, however long
-- the log beside is.
SELECT what ->> 'forwarder', what ->> 'queue', what ->> 'key', who, why, {at}, {until},
    CASE
        WHEN until IS NOT NULL
        THEN CAST(EXTRACT(epoch FROM LEAST(until, TIMESTAMPTZ '9999-12-30 UTC') - statement_timestamp()) AS float8)
    END
FROM {control_table}
WHERE {planned_anew} AND outbox = {origin} AND action = 'pause' AND ended_at IS NULL
  AND (until IS NULL OR until > statement_timestamp())
ORDER BY id

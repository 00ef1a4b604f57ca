-- Pause for all processes. An earlier pause of the same ends, so that the last word counts; and those whose time has passed
-- are written down as ended. No row comes back where the time of the new one has passed already.
WITH ended AS (
    UPDATE {control_table}
    SET ended_at = LEAST(until, statement_timestamp())
    WHERE outbox = {origin} AND action = 'pause' AND ended_at IS NULL
      AND (what = CAST(:what AS jsonb) OR until <= statement_timestamp())
)
INSERT INTO {control_table} (outbox, who, action, what, why, until)
SELECT {origin}, CAST(:who AS text), 'pause', CAST(:what AS jsonb), CAST(:why AS text), asked.until
FROM (
    SELECT COALESCE(CAST(:until AS timestamptz), statement_timestamp() + CAST(:within AS interval)) AS until
) AS asked
WHERE asked.until IS NULL OR asked.until > statement_timestamp()
RETURNING at, until, CAST(EXTRACT(epoch FROM until - statement_timestamp()) AS float8) AS seconds_left,
    pg_notify('outbox:' || {oid}, :payload)

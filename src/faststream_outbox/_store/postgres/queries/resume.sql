-- End the pauses of one scope, and write down who did it; no row comes back where there was none.
WITH ended AS (
    UPDATE {control_table}
    SET ended_at = LEAST(until, statement_timestamp())
    WHERE outbox = {origin} AND action = 'pause' AND ended_at IS NULL
      AND (what = CAST(:what AS jsonb) OR until <= statement_timestamp())
    RETURNING what = CAST(:what AS jsonb) AND (until IS NULL OR until > statement_timestamp()) AS was_in_force
)
INSERT INTO {control_table} (outbox, who, action, what, why, affected)
SELECT {origin}, CAST(:who AS text), 'resume', CAST(:what AS jsonb), CAST(:why AS text), count(*)
FROM ended
WHERE was_in_force
HAVING count(*) > 0
RETURNING affected, pg_notify('outbox:' || {oid}, :payload)

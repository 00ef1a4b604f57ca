-- What people did, the last first.
SELECT id, {at}, who, action, CAST(what AS text) AS what, why, affected, {until}, {ended_at}
FROM {control_table}
WHERE outbox = {origin}
  AND (CAST(:before AS bigint) IS NULL OR id < CAST(:before AS bigint))
  AND (CAST(:action AS text) IS NULL OR action = CAST(:action AS text))
ORDER BY id DESC
LIMIT CAST(:limit AS bigint)

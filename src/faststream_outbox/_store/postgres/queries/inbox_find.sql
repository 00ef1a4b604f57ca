-- Finds an entry, after an INSERT that has written none: a trigger or a rule may have suppressed the row, and then the message is no
-- repeat. It is a statement of its own, since only the next snapshot is sure to see what was waited for.
SELECT true
FROM {table}
WHERE {planned_anew}
  AND consumer = CAST(:consumer AS text)
  AND queue = CAST(:queue AS text)
  AND idempotency_key = CAST(:idempotency_key AS text)

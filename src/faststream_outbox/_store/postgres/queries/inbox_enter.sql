-- Enters a message for a consumer. No row comes back where an entry is there already. An entry of a transaction that is still open
-- is waited for: it is there if that transaction commits, and is none if it is rolled back.
--
-- The arbiter is named: whatever else is in the way, as a unique index of the owner's own, must be an error and no repeat.
INSERT INTO {table} (consumer, queue, idempotency_key)
VALUES (CAST(:consumer AS text), CAST(:queue AS text), CAST(:idempotency_key AS text))
ON CONFLICT (consumer, queue, idempotency_key) DO NOTHING
RETURNING true

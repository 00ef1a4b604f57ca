-- Rows that SQL writes need no idempotency key of their own.
ALTER TABLE {table} ALTER COLUMN idempotency_key SET DEFAULT {made_key};

-- Handlers with an inbox.
GRANT INSERT (consumer, queue, idempotency_key), SELECT (consumer, queue, idempotency_key) ON {inbox_table} TO {role};

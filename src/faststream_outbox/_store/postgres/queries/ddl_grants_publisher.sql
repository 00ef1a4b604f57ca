-- publish: no id, count or state of its own choice.
GRANT INSERT (queue, key, idempotency_key, deduplicate, payload, headers, timer_id, next_attempt_at) ON {table} TO {role};
GRANT SELECT (id, queue, idempotency_key, deduplicate, timer_id) ON {table} TO {role};

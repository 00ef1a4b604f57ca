-- publish with timer_conflict="extend": a live timer becomes another message.
GRANT UPDATE (id, key, idempotency_key, deduplicate, payload, headers, created_at, next_attempt_at, attempts_count,
    deliveries_count, first_attempt_at, last_attempt_at, last_exception) ON {table} TO {role};
GRANT SELECT (key, payload, headers, created_at, next_attempt_at, acquired_token, failed_at) ON {table} TO {role};

-- publish where a forwarder has tee=True: the copies too.
GRANT INSERT (created_at) ON {table} TO {role};
GRANT SELECT (key, payload, headers, next_attempt_at, created_at) ON {table} TO {role};

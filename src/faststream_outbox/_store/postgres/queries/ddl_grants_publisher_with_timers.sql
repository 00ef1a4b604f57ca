-- cancel_timer.
GRANT DELETE ON {table} TO {role};
GRANT SELECT (acquired_token, failed_at) ON {table} TO {role};

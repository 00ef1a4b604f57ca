-- All commands and methods that only look.
GRANT SELECT ON {table} TO {role};
-- Where there is a dead-letter table.
GRANT SELECT ON {dlq_table} TO {role};

-- All commands and methods that only look.
GRANT SELECT ON {table} TO {role};
-- Where there is a dead-letter table.
GRANT SELECT ON {dead_letter_table} TO {role};
-- Where there is a position table.
GRANT SELECT ON {position_table} TO {role};
-- Where there is a control table.
GRANT SELECT ON {control_table} TO {role};
-- Where there is an inbox table.
GRANT SELECT ON {inbox_table} TO {role};

-- Handlers and forwarders: they change the state of a row, and delete it. They never change its content.
GRANT SELECT, DELETE ON {table} TO {role};
GRANT UPDATE (next_attempt_at, attempts_count, deliveries_count, first_attempt_at, last_attempt_at, acquired_at,
    acquired_token, failed_at, failure_reason, last_exception) ON {table} TO {role};
-- Without this, a row that SQL wrote with a much higher id can hide other rows for minutes.
GRANT SELECT ON SEQUENCE {sequence} TO {role};
-- Where there is a dead-letter table.
GRANT INSERT ON {dead_letter_table} TO {role};
-- Where there is a position table.
GRANT SELECT, INSERT, UPDATE (token, next_sequence, last_offset, written_at) ON {position_table} TO {role};
-- Where there is a control table.
GRANT SELECT ON {control_table} TO {role};

-- broker.dead_letters, and the commands dead replay and dead discard.
GRANT SELECT, INSERT, DELETE ON {table} TO {role};
GRANT UPDATE (next_attempt_at, attempts_count, deliveries_count, first_attempt_at, failed_at, failure_reason, last_exception)
    ON {table} TO {role};
-- Where there is a dead-letter table.
GRANT SELECT, DELETE, UPDATE (failed_at) ON {dead_letter_table} TO {role};
-- Where there is a control table.
GRANT SELECT, INSERT, UPDATE (affected) ON {control_table} TO {role};

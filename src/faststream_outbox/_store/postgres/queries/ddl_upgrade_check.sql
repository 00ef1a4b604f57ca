-- Rows that SQL writes are checked as those of publish are. Rows that are there already are checked last, while publishers
-- and consumers go on.
-- If that names a bad row: docs/migrations.md sets such rows aside.
ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {check_name};
ALTER TABLE {table} ADD CONSTRAINT {check_name} CHECK ({check}) NOT VALID;
ALTER TABLE {table} VALIDATE CONSTRAINT {check_name};

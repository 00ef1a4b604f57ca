-- broker.admin.pause and resume, and the commands of these names.
GRANT SELECT, INSERT, UPDATE (ended_at) ON {control_table} TO {role};

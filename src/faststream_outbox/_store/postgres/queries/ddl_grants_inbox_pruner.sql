-- Inbox.prune and Inbox.pruning.
GRANT SELECT, DELETE, UPDATE (accepted_at) ON {inbox_table} TO {role};

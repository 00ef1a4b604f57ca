-- Delivered rows are deleted, so what is to be cleaned up is many times what is there. By default PostgreSQL waits until a
-- fifth of a table is dead: behind a long backlog that is too late. With these it cleans up after so many rows, whatever the
-- backlog is, and looks at statistics as often.
ALTER TABLE {table} SET (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 50000,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 10000,
    autovacuum_vacuum_cost_delay = 0
);

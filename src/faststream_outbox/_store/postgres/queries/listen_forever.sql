-- Let this connection be idle for as long as it likes: it is there to wait. No row where the server has no such limit, which
-- came with PostgreSQL 14.
SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'

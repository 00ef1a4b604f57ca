-- The server, the database and the role that asks, and how many connections each has and may have.
SELECT current_setting('server_version') AS version, current_database() AS database, current_user AS role,
    current_setting('transaction_read_only') = 'off' AS takes_writes, pg_is_in_recovery() AS is_standby,
    pg_backend_pid() AS backend,
    CAST((SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS integer) AS connections,
    CAST(current_setting('max_connections') AS integer)
        - CAST(current_setting('superuser_reserved_connections') AS integer)
        - COALESCE(CAST(current_setting('reserved_connections', true) AS integer), 0) AS most_connections,
    CAST((SELECT count(*) FROM pg_stat_activity WHERE usename = current_user) AS integer) AS role_connections,
    (SELECT NULLIF(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user) AS role_limit,
    CAST((SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()) AS integer) AS database_connections,
    (SELECT NULLIF(datconnlimit, -1) FROM pg_database WHERE datname = current_database()) AS database_limit,
    (SELECT CAST(setting AS integer) FROM pg_settings WHERE name = 'statement_timeout') AS statement_timeout_ms

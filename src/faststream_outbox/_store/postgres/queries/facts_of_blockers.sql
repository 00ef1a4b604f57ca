-- Sessions for which others wait that work on these tables, with the number of those that wait.
SELECT blocker.pid, CAST(activity.usename AS text) AS user, activity.application_name AS application, activity.state,
    CAST(EXTRACT(epoch FROM statement_timestamp() - activity.xact_start) AS float8) AS seconds,
    CAST(count(*) AS integer) AS waiting
FROM pg_stat_activity AS waiter
CROSS JOIN LATERAL unnest(pg_blocking_pids(waiter.pid)) AS blocker (pid)
LEFT JOIN pg_stat_activity AS activity ON activity.pid = blocker.pid
WHERE waiter.wait_event_type = 'Lock' AND waiter.datname = current_database()
  AND EXISTS (
      SELECT FROM pg_locks
      WHERE pg_locks.pid = waiter.pid
        AND relation IN (SELECT to_regclass(name) FROM unnest(CAST(:tables AS text[])) AS given (name))
  )
GROUP BY blocker.pid, activity.usename, activity.application_name, activity.state, activity.xact_start
ORDER BY waiting DESC
LIMIT 20

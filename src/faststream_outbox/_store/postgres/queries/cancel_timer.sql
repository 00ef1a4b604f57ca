-- Take a timer back, with its copies, unless it has been handed to a consumer or has failed.
DELETE FROM {table}
WHERE {planned_anew} AND queue = ANY (CAST(:queues AS text[])) AND timer_id = :timer_id
  AND acquired_token IS NULL AND failed_at IS NULL
RETURNING queue

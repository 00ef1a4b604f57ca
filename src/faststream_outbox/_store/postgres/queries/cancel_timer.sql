-- Take a timer back, unless it has been handed to a consumer or has failed.
DELETE FROM {table}
WHERE {planned_anew} AND queue = :queue AND timer_id = :timer_id AND acquired_token IS NULL AND failed_at IS NULL
RETURNING id

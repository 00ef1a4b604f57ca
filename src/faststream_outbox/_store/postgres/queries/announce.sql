-- Say to all that listen what this process says of itself, on the channel of what the table is, whatever they call it.
SELECT pg_notify('outbox:' || CAST(CAST(to_regclass(CAST(:table AS text)) AS oid) AS text), payload)
FROM unnest(CAST(:payloads AS text[])) AS payload

-- One message that nothing holds back and that cannot be a duplicate: as most are, with half of the parameters to pass.
INSERT INTO {table} (queue, key, idempotency_key, payload, headers)
VALUES (:queue, :key, :idempotency_key, :payload, CAST(CAST(:headers AS text) AS jsonb))
RETURNING id{notify}

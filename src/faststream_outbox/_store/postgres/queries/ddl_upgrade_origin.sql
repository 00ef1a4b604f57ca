-- Dead letters note which outbox they come from, so that several may share a table, and ids may begin anew.
ALTER TABLE {dlq_table}
    ADD COLUMN IF NOT EXISTS outbox text NOT NULL DEFAULT '',
    DROP CONSTRAINT IF EXISTS {dlq_key},
    ADD PRIMARY KEY (id, outbox, failed_at);

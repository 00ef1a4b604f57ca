-- Write down what is done in this transaction: in a new line, or in the one that an earlier transaction of the same change
-- has written.
WITH more AS (
    UPDATE {control_table} SET affected = affected + CAST(:affected AS bigint)
    WHERE id = CAST(:line AS bigint)
    RETURNING id
),
new AS (
    INSERT INTO {control_table} (outbox, who, action, what, why, affected)
    SELECT {origin}, CAST(:who AS text), CAST(:action AS text), CAST(:what AS jsonb), CAST(:why AS text),
        CAST(:affected AS bigint)
    WHERE NOT EXISTS (SELECT FROM more)
    RETURNING id
)
SELECT id FROM more UNION ALL SELECT id FROM new

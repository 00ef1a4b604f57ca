-- Rows that this transaction has just written, and is about to write anew.
DELETE FROM {table} WHERE id = ANY (CAST(:ids AS bigint[]))

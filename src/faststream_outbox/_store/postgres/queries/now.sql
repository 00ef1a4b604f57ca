-- The clock that the times in the tables are from.
SELECT statement_timestamp()

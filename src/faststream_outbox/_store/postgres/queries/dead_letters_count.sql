-- How many dead letters there are.
SELECT count(*) FROM {dead_table} AS d WHERE {selected}

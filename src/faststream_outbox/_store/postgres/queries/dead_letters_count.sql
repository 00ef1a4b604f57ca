-- How many dead letters there are.
SELECT count(*) FROM {dead_letters} AS d WHERE {selected}

-- A standby answers as well, and so does a database in which sessions read only: there is nothing to be done on either.
SELECT current_setting('transaction_read_only') = 'off'

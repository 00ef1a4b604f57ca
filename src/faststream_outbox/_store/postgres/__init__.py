"""The store in PostgreSQL. Each statement is a file in ``queries``, named like the method that runs it."""

"""Everything that fails, under load, with the ledger as the judge.

Each scenario has a quick form for every run and a long one for `make test-long`, and prints a line that
`python -m integration.scenarios.results` makes a table of.
"""

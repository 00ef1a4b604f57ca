"""How long claims and hand-overs take while a snapshot is held, beside those of a commit before."""

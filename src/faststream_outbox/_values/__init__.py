"""Plain values that every layer shares: rows, drafts, outcomes."""

"""Plain values that every layer shares: what a row is, what is to be written, how a delivery ended."""

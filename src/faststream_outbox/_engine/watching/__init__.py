"""Looks for what keeps rows waiting, and writes it to the log. No row depends on it."""

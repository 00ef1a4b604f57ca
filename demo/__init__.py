"""A small shop, the servers that it needs, and a page that shows every step of its messages: ``python -m demo``."""

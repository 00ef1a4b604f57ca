"""The consumer's half of the outbox: each message is handled once, though copies of it may come again."""

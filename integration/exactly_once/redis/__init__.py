"""Into a real Redis, each message once."""

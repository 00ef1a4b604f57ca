"""The relay without code, as a process of its own: ``faststream-outbox relay relay.toml``."""

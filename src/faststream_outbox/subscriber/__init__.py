"""``broker.subscriber(...)``: FastStream's anatomy of a subscriber, for the outbox."""

"""``broker.publisher(...)``: FastStream's anatomy of a publisher, for the outbox."""

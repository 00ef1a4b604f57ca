"""How forwarders carry rows on, under row locks of one short transaction. It knows nothing of handlers."""

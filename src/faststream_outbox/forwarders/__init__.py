"""Forwarders carry rows on to other brokers. Each kind of destination has a folder; `any_broker` serves all others."""

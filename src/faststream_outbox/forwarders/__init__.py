"""Forwarders carry rows on to other brokers. Each kind of destination has a folder; `general` serves all others."""

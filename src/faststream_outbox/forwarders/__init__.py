"""Forwarders: carry rows on to other brokers. One file for each kind of destination."""

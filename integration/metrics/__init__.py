"""Metrics and traces of brokers on real servers."""

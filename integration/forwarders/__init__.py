"""Forwarders between a real PostgreSQL and a real Apache Kafka."""

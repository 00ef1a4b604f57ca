"""Exactly once into Kafka, on real servers: see docs/exactly-once.md."""

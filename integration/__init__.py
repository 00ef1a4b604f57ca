"""Tests on real servers: PostgreSQL and Apache Kafka, with the means to break them."""

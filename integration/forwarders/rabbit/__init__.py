"""Forwarders between a real PostgreSQL and a real RabbitMQ."""

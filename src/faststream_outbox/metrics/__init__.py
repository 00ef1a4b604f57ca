"""What is measured of an outbox, in no form yet: Prometheus and OpenTelemetry are two folders beside it."""

"""What is NATS's and Confluent's own; what every destination does is shown by the suite above."""

"""The part of the door that needs the Confluent client to be installed."""

from typing import Any

from confluent_kafka import Producer

__all__ = ("producer_of", "producer_options")


def producer_options(broker: Any) -> dict[str, Any]:
    """Return librdkafka's options of a broker's producer, as they will be or are in use."""
    options: dict[str, Any] = broker.config.broker_config.connection_config.producer_config
    return options


def producer_of(broker: Any) -> Producer:
    """Return librdkafka's producer of a connected broker."""
    producer: Producer = broker.config.broker_config.producer._producer.producer.producer
    return producer

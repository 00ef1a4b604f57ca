"""Finds the destination that goes with a publisher."""

import sys
from typing import Any, Protocol

from faststream_outbox._engine.destination import Destination
from faststream_outbox._engine.health import Log
from faststream_outbox.exceptions import ConfigError


class NamedDestination(Destination, Protocol):
    """A destination with what a forwarder needs to know of it."""

    name: str
    send_timeout: float


def create_destination(publisher: Any, log: Log) -> NamedDestination:
    """Make the destination for a FastStream publisher.

    Args:
        publisher: What ``broker.publisher(...)`` of the destination's broker returned.
        log: Where changes of the destination's state are written.

    Raises:
        ConfigError: There is no destination of that kind, or its settings are not safe.
    """
    # A publisher of a broker whose module was never imported cannot be among us; importing it may need its extra.
    if "faststream.kafka" in sys.modules:
        from faststream.kafka.publisher.usecase import LogicPublisher  # noqa: PLC0415

        from faststream_outbox.forwarders.kafka import KafkaDestination  # noqa: PLC0415

        if isinstance(publisher, LogicPublisher):
            return KafkaDestination(publisher, log)
    msg = f"to: must be a publisher of FastStream's KafkaBroker, as in kafka.publisher('orders.v1'), got {publisher!r}"
    raise ConfigError(msg)

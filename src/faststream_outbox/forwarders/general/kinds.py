"""Finds what is known of a publisher's kind."""

import inspect
import re
import sys
from importlib.metadata import version
from typing import Any

from faststream_outbox._faststream import PublisherUsecase
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders.general.outlet import Outlet

OLDEST_NATS = (2, 16)
"""Of nats-py: before, it had other errors, and did not refuse headers that it cannot carry."""


def outlet_of(publisher: Any, *, allow_lossy: bool) -> Outlet | None:
    """Give the outlet of a publisher, a plain one if its kind is not known; None if it is not one of another broker.

    Raises:
        ConfigError: Its settings are not safe.
    """
    # A publisher of a broker whose module was never imported cannot be among us; importing it may need its extra.
    if "faststream.nats" in sys.modules:
        from faststream.nats.publisher.usecase import LogicPublisher as NatsPublisher  # noqa: PLC0415

        if isinstance(publisher, NatsPublisher):
            _check_nats()
            from faststream_outbox.forwarders.general.nats import NatsOutlet  # noqa: PLC0415

            return NatsOutlet(publisher, allow_lossy=allow_lossy)
    if "faststream.confluent" in sys.modules:
        from faststream.confluent.publisher.usecase import LogicPublisher as ConfluentPublisher  # noqa: PLC0415

        from faststream_outbox.forwarders.general.confluent import ConfluentOutlet  # noqa: PLC0415

        if isinstance(publisher, ConfluentPublisher):
            return ConfluentOutlet(publisher, allow_lossy=allow_lossy)
    if "faststream.mqtt" in sys.modules:
        from faststream.mqtt.publisher.usecase import MQTTPublisher  # noqa: PLC0415

        from faststream_outbox.forwarders.general.mqtt import MqttOutlet  # noqa: PLC0415

        if isinstance(publisher, MQTTPublisher):
            return MqttOutlet(publisher, allow_lossy=allow_lossy)
    # An outbox publishes in a session, which is not to be had here.
    if not isinstance(publisher, PublisherUsecase) or "session" in inspect.signature(publisher.publish).parameters:
        return None
    return Outlet(publisher, allow_lossy=allow_lossy)


def _check_nats() -> None:
    """Refuse a client that FastStream takes and that would fail here."""
    installed = version("nats-py")
    if tuple(map(int, re.findall(r"\d+", installed)[:2])) < OLDEST_NATS:
        oldest = ".".join(map(str, OLDEST_NATS))
        msg = f"to: nats-py {installed} is too old for a forwarder; write pip install 'nats-py>={oldest}'"
        raise ConfigError(msg)

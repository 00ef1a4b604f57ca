"""Finds what is known of a publisher's kind."""

import inspect
import sys
from typing import Any

from faststream_outbox._faststream import PublisherUsecase
from faststream_outbox.forwarders.general.outlet import Outlet


def outlet_of(publisher: Any, *, allow_lossy: bool) -> Outlet | None:
    """Give the outlet of a publisher, a plain one if its kind is not known; None if it is not one of another broker.

    Raises:
        ConfigError: Its settings are not safe.
    """
    # A publisher of a broker whose module was never imported cannot be among us; importing it may need its extra.
    if "faststream.nats" in sys.modules:
        from faststream.nats.publisher.usecase import LogicPublisher as NatsPublisher  # noqa: PLC0415

        from faststream_outbox.forwarders.general.nats import NatsOutlet  # noqa: PLC0415

        if isinstance(publisher, NatsPublisher):
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

"""Finds the destinations that go with a publisher."""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from faststream_outbox._engine.destination import Destination
from faststream_outbox._engine.health import Health, Log
from faststream_outbox.exceptions import ConfigError

MARGIN_SECONDS = 5.0
"""A hand-over's default time-out is longer than the client's own by so much: the client knows better what is wrong."""


class LaneDestination(Destination, Protocol):
    """A destination as one lane has it, which hands over once at a time and keeps to its own time-out."""

    def finish(self, grace: float) -> None:
        """End what is in flight after ``grace`` seconds at most, with the verdicts that are known by then."""


class Destinations(NamedTuple):
    """The same address once for each lane."""

    name: str
    """Kind and address, as in ``kafka:orders.v1``."""
    send_timeout: float
    """Seconds for one hand-over."""
    lanes: Sequence[LaneDestination]


def create_destinations(
    publisher: Any, log: Log, *, lanes: int, send_timeout: float | None, allow_lossy: bool = False
) -> Destinations:
    """Make the destinations for a FastStream publisher.

    Args:
        publisher: What ``broker.publisher(...)`` of the destination's broker returned.
        log: Where changes of the destination's state are written.
        lanes: How many are wanted.
        send_timeout: Seconds for one hand-over; None: a little more than the client's own time-out.
        allow_lossy: Whether a destination will do that drops what nobody listens to.

    Raises:
        ConfigError: There is no destination of that kind, or its settings are not safe.
    """
    # A publisher of a broker whose module was never imported cannot be among us; importing it may need its extra.
    if "faststream.kafka" in sys.modules:
        from faststream.kafka.publisher.usecase import LogicPublisher  # noqa: PLC0415

        from faststream_outbox.forwarders.kafka.destination import KafkaDestination  # noqa: PLC0415
        from faststream_outbox.forwarders.kafka.settings import KafkaSettings  # noqa: PLC0415

        if isinstance(publisher, LogicPublisher):
            settings = KafkaSettings.of(publisher)
            name = f"kafka:{settings.topic}"
            seconds = send_timeout or settings.request_timeout + MARGIN_SECONDS
            health = Health(f"destination {name}", log)
            return Destinations(name, seconds, [KafkaDestination(settings, health, seconds) for _ in range(lanes)])
    if "faststream.redis" in sys.modules:
        from faststream.redis.publisher.usecase import LogicPublisher as RedisPublisher  # noqa: PLC0415

        from faststream_outbox.forwarders.redis.destination import RedisDestination  # noqa: PLC0415
        from faststream_outbox.forwarders.redis.settings import RedisSettings  # noqa: PLC0415

        if isinstance(publisher, RedisPublisher):
            redis = RedisSettings.of(publisher, allow_lossy=allow_lossy)
            name = f"redis:{redis.address}"
            seconds = send_timeout or redis.usual_timeout + MARGIN_SECONDS
            health = Health(f"destination {name}", log)
            return Destinations(name, seconds, [RedisDestination(redis, health, seconds) for _ in range(lanes)])
    if "faststream.rabbit" in sys.modules:
        from faststream.rabbit.publisher import RabbitPublisher  # noqa: PLC0415

        from faststream_outbox.forwarders.rabbit.destination import RabbitDestination  # noqa: PLC0415
        from faststream_outbox.forwarders.rabbit.settings import RabbitSettings  # noqa: PLC0415
        from faststream_outbox.forwarders.rabbit.suspects import Suspects  # noqa: PLC0415

        if isinstance(publisher, RabbitPublisher):
            rabbit = RabbitSettings.of(publisher)
            name = f"rabbit:{rabbit.address}"
            seconds = send_timeout or rabbit.confirm_timeout + MARGIN_SECONDS
            health, suspects = Health(f"destination {name}", log), Suspects()
            lanes_of_it = [RabbitDestination(rabbit, health, suspects, seconds) for _ in range(lanes)]
            return Destinations(name, seconds, lanes_of_it)
    msg = (
        "to: must be a publisher of FastStream's KafkaBroker, RabbitBroker or RedisBroker, "
        f"as in kafka.publisher('orders.v1'), got {publisher!r}"
    )
    raise ConfigError(msg)

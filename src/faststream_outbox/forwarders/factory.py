"""Finds the destinations that go with a publisher."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, cast, get_args

from faststream_outbox._engine.health import Health, Log
from faststream_outbox._engine.relaying.destination import Destination
from faststream_outbox._values.cloudevents import kafka_headers, rabbit_headers
from faststream_outbox._values.wire import wire_headers
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders.general.destination import GeneralDestination
from faststream_outbox.forwarders.general.kinds import outlet_of
from faststream_outbox.forwarders.status import PartDown
from faststream_outbox.forwarders.suspects import Suspects

MARGIN_SECONDS = 5.0
"""A hand-over's default time-out is longer than the client's own by so much: the client knows better what is wrong."""


class LaneDestination(Destination, Protocol):
    """A destination as one lane has it, which hands over once at a time and keeps to its own time-out."""

    def finish(self, grace: float) -> None:
        """End what is in flight after ``grace`` seconds at most, with the verdicts that are known by then."""


PartsDown: TypeAlias = Callable[[], Sequence[PartDown]]


class Destinations(NamedTuple):
    """The same address once for each lane."""

    name: str
    """Kind and address, as in ``kafka:orders.v1``."""
    health: Health
    """Of the address; its lanes share it."""
    send_timeout: float
    """Seconds for one hand-over."""
    lanes: Sequence[LaneDestination]
    parts_down: PartsDown = tuple
    """Tells which parts of it take no message now."""


Envelope: TypeAlias = Literal["cloudevents"]


class Wishes(NamedTuple):
    """What a forwarder asks of its destination, beside the publisher's own settings."""

    log: Log
    """Where the destination may warn of what it finds there."""
    allow_lossy: bool = False
    """Whether a destination will do that drops what nobody listens to."""
    envelope: Envelope | None = None
    """How metadata travel beside the bridge's own headers."""
    tombstones: bool = False
    """Whether the body None is to be sent as a null value."""
    count_nacks: bool = False
    """Whether what a RabbitMQ queue says of itself counts against the message."""


class Address(NamedTuple):
    """What one kind of destination makes of a publisher."""

    name: str
    """Kind and address, as in ``kafka:orders.v1``."""
    usual_timeout: float
    """Seconds after which the client itself knows that something is wrong."""
    lane: Callable[[float], LaneDestination]
    """Makes the destination of a lane, given the seconds for one hand-over."""
    parts_down: PartsDown = tuple
    """Tells which parts of it are down, where the kind has such."""


def _kafka(publisher: Any, wishes: Wishes) -> Address | None:
    if "faststream.kafka" not in sys.modules:
        return None
    from faststream.kafka.publisher.usecase import LogicPublisher  # noqa: PLC0415

    from faststream_outbox.forwarders.kafka.destination import KafkaDestination  # noqa: PLC0415
    from faststream_outbox.forwarders.kafka.settings import KafkaSettings  # noqa: PLC0415

    if not isinstance(publisher, LogicPublisher):
        return None
    refuse_count_nacks(wishes, "Kafka")
    headers_of = kafka_headers if wishes.envelope else wire_headers
    settings = KafkaSettings.of(publisher, headers_of, tombstones=wishes.tombstones)
    suspects = Suspects()
    return Address(
        f"kafka:{settings.topic}",
        settings.request_timeout,
        lambda seconds: KafkaDestination(settings, suspects, seconds),
    )


def _rabbit(publisher: Any, wishes: Wishes) -> Address | None:
    if "faststream.rabbit" not in sys.modules:
        return None
    from faststream.rabbit.publisher import RabbitPublisher  # noqa: PLC0415

    from faststream_outbox.forwarders.rabbit.destination import RabbitDestination  # noqa: PLC0415
    from faststream_outbox.forwarders.rabbit.outages import Outages  # noqa: PLC0415
    from faststream_outbox.forwarders.rabbit.settings import RabbitSettings  # noqa: PLC0415

    if not isinstance(publisher, RabbitPublisher):
        return None
    refuse_tombstones(wishes, "RabbitMQ")
    headers_of = rabbit_headers if wishes.envelope else wire_headers
    settings = RabbitSettings.of(publisher, headers_of, allow_lossy=wishes.allow_lossy, count_nacks=wishes.count_nacks)
    suspects, outages = Suspects(), Outages()
    return Address(
        f"rabbit:{settings.address}",
        settings.confirm_timeout,
        lambda seconds: RabbitDestination(settings, outages, suspects, seconds),
        outages.down,
    )


def _redis(publisher: Any, wishes: Wishes) -> Address | None:
    if "faststream.redis" not in sys.modules:
        return None
    from faststream.redis.publisher.usecase import LogicPublisher  # noqa: PLC0415

    from faststream_outbox.forwarders.redis.destination import RedisDestination  # noqa: PLC0415
    from faststream_outbox.forwarders.redis.eviction import EvictionWarning  # noqa: PLC0415
    from faststream_outbox.forwarders.redis.settings import RedisSettings  # noqa: PLC0415

    if not isinstance(publisher, LogicPublisher):
        return None
    refuse_envelope(wishes, "Redis")
    refuse_tombstones(wishes, "Redis")
    refuse_count_nacks(wishes, "Redis")
    settings, suspects = RedisSettings.of(publisher, allow_lossy=wishes.allow_lossy), Suspects()
    eviction = EvictionWarning(wishes.log, settings.address)
    return Address(
        f"redis:{settings.address}",
        settings.usual_timeout,
        lambda seconds: RedisDestination(settings, eviction, suspects, seconds),
    )


def _general(publisher: Any, wishes: Wishes) -> Address | None:
    outlet = outlet_of(publisher, allow_lossy=wishes.allow_lossy)
    if outlet is None:
        return None
    refuse_envelope(wishes, outlet.kind)
    refuse_tombstones(wishes, outlet.kind)
    refuse_count_nacks(wishes, outlet.kind)
    return Address(outlet.name, outlet.usual_timeout, lambda seconds: GeneralDestination(outlet, seconds))


Kind: TypeAlias = Callable[[Any, Wishes], Address | None]
"""Reads a publisher of its own kind and checks its settings; gives None for every other.

It imports what its extra installs only when FastStream's module was imported by somebody else: a publisher of a broker
whose module was never imported cannot be among us.
"""

KINDS: Sequence[Kind] = (_kafka, _rabbit, _redis, _general)
"""The first that knows a publisher has it."""


def check_envelope(envelope: Any) -> Envelope | None:
    """Refuse an envelope that nobody knows."""
    if envelope is None or envelope in get_args(Envelope):
        return cast("Envelope | None", envelope)
    known = " or ".join(repr(each) for each in get_args(Envelope))
    msg = f"envelope: must be {known}, or left out, got {envelope!r}"
    raise ConfigError(msg)


def refuse_envelope(wishes: Wishes, kind: str) -> None:
    """Refuse an envelope for a kind of destination for which its specification has no binding."""
    if wishes.envelope is not None:
        msg = f"envelope: {wishes.envelope!r} has no binding for {kind}; leave it out, or forward to Kafka or RabbitMQ"
        raise ConfigError(msg)


def refuse_count_nacks(wishes: Wishes, kind: str) -> None:
    """Refuse to count basic.nack for a kind of destination that has none."""
    if wishes.count_nacks:
        msg = f"count_nacks: {kind} has no basic.nack; leave it out, or forward to rabbit.publisher(...)"
        raise ConfigError(msg)


def refuse_tombstones(wishes: Wishes, kind: str) -> None:
    """Refuse null values for a kind of destination that has none, or whose publisher sends none."""
    if wishes.tombstones:
        msg = f"tombstones: a message to {kind} always has a value; leave it out, or forward to kafka.publisher(...)"
        raise ConfigError(msg)


def create_destinations(
    publisher: Any,
    log: Log,
    *,
    lanes: int,
    send_timeout: float | None,
    allow_lossy: bool = False,
    envelope: Envelope | None = None,
    tombstones: bool = False,
    count_nacks: bool = False,
) -> Destinations:
    """Make the destinations for a FastStream publisher.

    Args:
        publisher: What ``broker.publisher(...)`` of the destination's broker returned.
        log: Where changes of the destination's state, and warnings, are written.
        lanes: How many are wanted.
        send_timeout: Seconds for one hand-over; None: a little more than the client's own time-out.
        allow_lossy: Whether a destination will do that drops what nobody listens to.
        envelope: How metadata travel beside the bridge's own headers.
        tombstones: Whether the body None is to be sent as a null value.
        count_nacks: Whether what a RabbitMQ queue says of itself counts against the message.

    Raises:
        ConfigError: There is no destination of that kind, or its settings are not safe.
    """
    wishes = Wishes(log, allow_lossy=allow_lossy, envelope=envelope, tombstones=tombstones, count_nacks=count_nacks)
    address = next((found for kind in KINDS if (found := kind(publisher, wishes)) is not None), None)
    if address is None:
        msg = (
            "to: must be a publisher of another FastStream broker, as in kafka.publisher('orders.v1'), "
            # A text may be an address with a password in it.
            f"got {type(publisher).__name__}"
        )
        raise ConfigError(msg)
    seconds = send_timeout or address.usual_timeout + MARGIN_SECONDS
    health = Health(f"destination {address.name}", log)
    return Destinations(
        address.name, health, seconds, [address.lane(seconds) for _ in range(lanes)], address.parts_down
    )

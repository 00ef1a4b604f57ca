"""Finds the destinations that go with a publisher."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast, get_args

from faststream_outbox._engine.health import Health, Log
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders.kinds import Envelope, LaneDestination, PositionKeeper, Wishes, address_of
from faststream_outbox.forwarders.outages import Outages

MARGIN_SECONDS = 5.0
"""A hand-over's default time-out is longer than the client's own by so much: the client knows better what is wrong."""


class Destinations(NamedTuple):
    """The same address once for each lane."""

    name: str
    """Kind and address, as in ``kafka:orders.v1``."""
    health: Health
    """Of the address; its lanes share it."""
    send_timeout: float
    """Seconds for one hand-over."""
    lanes: Sequence[LaneDestination]
    outages: Outages
    """Which parts of it take no message now."""
    is_divided: bool = False
    """Whether rows go to several of these parts without a transform."""
    maybe_repeated: Callable[[], int] = int
    """Returns how often it could not be known whether messages were sent before."""
    maybe_lost: Callable[[], int] = int
    """Returns how often the destination has lost what it had acknowledged, as far as it shows."""


def check_envelope(envelope: Any) -> Envelope | None:
    """Raise for an unknown envelope."""
    if envelope is None or envelope in get_args(Envelope):
        return cast("Envelope | None", envelope)
    known = " or ".join(repr(each) for each in get_args(Envelope))
    msg = f"envelope: must be {known}, or left out, got {envelope!r}"
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
    exactly_once: PositionKeeper | None = None,
) -> Destinations:
    """Return the destinations for a FastStream publisher.

    Args:
        publisher: What ``broker.publisher(...)`` of the destination's broker returned.
        log: Where changes of the destination's state, and warnings, are written.
        lanes: How many are wanted.
        send_timeout: Seconds for one hand-over; None: a little more than the client's own time-out.
        allow_lossy: Whether to accept a destination that drops messages without a listener.
        envelope: How the message and its headers are put together; None: in the kind's usual way.
        tombstones: Whether to send the body None as a null value.
        count_nacks: Whether what a RabbitMQ queue says of itself counts against the message.
        exactly_once: Where the forwarder keeps how far it has come; None: a crash may repeat messages.

    Raises:
        ConfigError: There is no destination of that kind, or its settings are not safe.
    """
    wishes = Wishes(
        log,
        allow_lossy=allow_lossy,
        envelope=envelope,
        tombstones=tombstones,
        count_nacks=count_nacks,
        exactly_once=exactly_once,
    )
    address = address_of(publisher, wishes)
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
        address.name,
        health,
        seconds,
        [address.lane(seconds) for _ in range(lanes)],
        Outages() if address.outages is None else address.outages,
        address.is_divided,
        address.maybe_repeated,
        address.maybe_lost,
    )

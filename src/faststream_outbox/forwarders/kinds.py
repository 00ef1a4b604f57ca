"""The kinds of destinations: a new kind is a folder, and a line in ``KINDS``."""

import inspect
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, cast

from faststream_outbox._engine.health import Log
from faststream_outbox._engine.relaying.destination import Destination
from faststream_outbox._faststream import PublisherUsecase
from faststream_outbox._store.positions import PositionStore
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders.outages import Outages

OLDEST_NATS = (2, 16)
"""Of nats-py: before, it had other errors, and did not refuse headers that it cannot carry."""


class LaneDestination(Destination, Protocol):
    """A destination as one lane has it, which hands over once at a time and keeps to its own time-out."""

    def finish(self, grace: float) -> None:
        """End what is in flight after ``grace`` seconds at most, with the verdicts that are known by then."""


Envelope: TypeAlias = Literal["cloudevents", "plain"]


class PositionKeeper(NamedTuple):
    """Where a forwarder keeps how far it has come, to send exactly once."""

    forwarder: Callable[[], str]
    """Returns its name."""
    store: PositionStore


class Wishes(NamedTuple):
    """What a forwarder asks of its destination, beside the publisher's own settings."""

    log: Log
    """Where the destination may warn of what it finds there."""
    allow_lossy: bool = False
    """Whether to accept a destination that drops messages without a listener."""
    envelope: Envelope | None = None
    """How the message and its headers are put together, where that is not the kind's usual way."""
    tombstones: bool = False
    """Whether to send the body None as a null value."""
    count_nacks: bool = False
    """Whether what a RabbitMQ queue says of itself counts against the message."""
    exactly_once: PositionKeeper | None = None
    """Whether each row is to be there once, also after a crash."""

    def refuse(self, kind: str, *names: str) -> None:
        """Raise a ConfigError for the first of these wishes that was made: a kind of destination cannot grant them."""
        for name in names:
            if wish := getattr(self, name):
                raise ConfigError(f"{name}: {_REFUSALS[name].format(wish=wish, kind=kind)}")

    def refuse_envelopes(self, kind: str, *, but: Envelope | None = None) -> None:
        """Raise a ConfigError for an envelope that a kind of destination does not have."""
        if self.envelope not in (None, but):
            where = _ENVELOPES[self.envelope]
            msg = f"envelope: {self.envelope!r} is not for {kind}; leave it out, or forward to {where}"
            raise ConfigError(msg)


_ENVELOPES: dict[Envelope, str] = {"cloudevents": "Kafka or RabbitMQ", "plain": "redis.publisher(stream=...)"}
"""Where each is for."""

_REFUSALS = {
    "tombstones": "a message to {kind} always has a value; leave it out, or forward to kafka.publisher(...)",
    "exactly_once": "{kind} has no way to it; leave it out, or forward to kafka.publisher(...) or "
    "redis.publisher(stream=...), or give the consumer an inbox",
    "count_nacks": "{kind} has no basic.nack; leave it out, or forward to rabbit.publisher(...)",
}


class Address(NamedTuple):
    """A publisher's address, as one kind of destination reads it."""

    name: str
    """Kind and address, as in ``kafka:orders.v1``."""
    usual_timeout: float
    """Seconds after which the client itself knows that something is wrong."""
    lane: Callable[[float], LaneDestination]
    """Makes the destination of a lane, given the seconds for one hand-over."""
    outages: Outages | None = None
    """Which parts of it are down, where the kind has such."""
    is_divided: bool = False
    """Whether rows go to several of these parts without a transform."""
    maybe_repeated: Callable[[], int] = int
    """Returns how often it could not be known whether messages were sent before."""
    maybe_lost: Callable[[], int] = int
    """Returns how often the destination has lost what it had acknowledged, as far as it shows."""


Reader: TypeAlias = Callable[[Any, Wishes], Address]
"""Reads a publisher of its own kind, and checks its settings; raises a ConfigError where they are not safe."""


class Kind(NamedTuple):
    """A class of publishers, and what reads them. Both are imported only where needed: each has an extra of its own."""

    publisher: tuple[str, str]
    """FastStream's module and class."""
    reader: str
    """A module of this package, whose function ``address_of`` is the ``Reader``."""
    oldest: tuple[str, tuple[int, int]] | None = None
    """The client that it needs, and since which version, where FastStream takes older ones."""


KINDS: Sequence[Kind] = (
    Kind(("faststream.kafka.publisher.usecase", "LogicPublisher"), "kafka.destination"),
    Kind(("faststream.rabbit.publisher", "RabbitPublisher"), "rabbit.destination"),
    Kind(("faststream.redis.publisher.usecase", "LogicPublisher"), "redis.destination"),
    Kind(("faststream.nats.publisher.usecase", "LogicPublisher"), "any_broker.nats", ("nats-py", OLDEST_NATS)),
    Kind(("faststream.confluent.publisher.usecase", "LogicPublisher"), "any_broker.confluent"),
    Kind(("faststream.mqtt.publisher.usecase", "MQTTPublisher"), "any_broker.mqtt"),
)
"""Publishers of other brokers are sent through as well as is known of any."""

ANY_OTHER = "any_broker.destination"


def address_of(publisher: Any, wishes: Wishes) -> Address | None:
    """Return a publisher's address as its kind reads it; None if it is no publisher of another broker.

    Raises:
        ConfigError: Its settings are not safe, or its client is too old.
    """
    for kind in KINDS:
        if isinstance(publisher, _imported(*kind.publisher)):
            _check_version(kind)
            return _reader(kind.reader)(publisher, wishes)
    # An outbox publishes in a session, which is not to be had here.
    if not isinstance(publisher, PublisherUsecase) or "session" in inspect.signature(publisher.publish).parameters:
        return None
    return _reader(ANY_OTHER)(publisher, wishes)


def _imported(module: str, name: str) -> type[Any] | tuple[()]:
    """Return a class of FastStream's; no class where its broker was never imported, and so has no publishers."""
    broker = ".".join(module.split(".")[:2])
    return cast("type[Any]", getattr(import_module(module), name)) if broker in sys.modules else ()


def _reader(module: str) -> Reader:
    return cast("Reader", import_module(f"{__package__}.{module}").address_of)


def _check_version(kind: Kind) -> None:
    """Raise a ConfigError for a client that FastStream takes and that would fail here."""
    if kind.oldest is None:
        return
    client, oldest = kind.oldest
    installed = version(client)
    if tuple(map(int, re.findall(r"\d+", installed)[:2])) < oldest:
        since = ".".join(map(str, oldest))
        msg = f"to: {client} {installed} is too old for a forwarder; write pip install '{client}>={since}'"
        raise ConfigError(msg)

"""The state of a forwarder."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from faststream_outbox._values.control import StoredPause


class ForwarderState(StrEnum):
    """The state of a forwarder in this process. Each is equal to its text: ``status.state == "paused"``."""

    STOPPED = "stopped"
    """The broker has not been started, or has been stopped."""
    PAUSED = "paused"
    """``pause()`` was called; or it, or each of its queues, is paused for all processes; or that is not known, since
    the control table was not read since the start."""
    CONNECTING = "connecting"
    """The destination has not been reached since the start."""
    FLOWING = "flowing"
    """The destination takes rows. With a ``last_error``: but for a part, as a Kafka partition without a leader."""
    DOWN = "down"
    """The destination is down; rows stay, and no attempt is counted."""
    PROBING = "probing"
    """The destination was down, and one lane tries now if it works again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartDown:
    """A part of a destination that takes no message now, while others do: a RabbitMQ routing key, a Kafka partition."""

    name: str
    """The routing key; or topic and partition, as in ``orders.v1[3]``."""
    error: str
    seconds: float
    """For how many seconds."""
    tries: int
    """Messages, or batches of Kafka, that it has not taken so far. With each, other queues of a RabbitMQ exchange may
    have got a copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwarderStatus:
    """The state of a forwarder at one moment. The counts are those of this process since its start."""

    name: str
    state: ForwarderState
    lag_rows: int | None
    """Rows of its queues that could be sent now, those behind a retry of their key included; None while stopped."""
    lag_seconds: float | None
    """For how long one of them could have been sent: since it was published, or since its time came, by the database's
    clock. 0.0 if no row waits; None while stopped."""
    last_error: str | None
    """Why the destination, or a part of it, cannot be used at present."""
    parts_down: Sequence[PartDown]
    """RabbitMQ routing keys whose queue takes no message now, and Kafka partitions; the others go on."""
    sent: int
    """Messages that the destination accepted."""
    refused: int
    """Attempts that counted: the destination refused the message, or the transform failed for it."""
    dead: int
    """Messages that became dead letters."""
    dropped: int
    """Messages that the transform left out."""
    deduplicated: int = 0
    """Messages that the destination already had under their idempotency key, and of which it keeps the first alone.
    NATS JetStream says so within its stream's duplicate window; other destinations do not, and count in ``sent``."""
    set_aside: int = 0
    """Messages that the destination has answered, and whose outcome PostgreSQL refuses to write. They are not sent
    again while this process lives; the write is tried again. With 1,000 of them, the forwarder takes no others."""
    set_aside_error: str | None = None
    """Why the last of them was refused."""
    maybe_repeated: int = 0
    """With ``exactly_once=True``: how often it could not be known whether messages in doubt were sent; the log says
    which, and why."""
    maybe_lost: int = 0
    """With ``exactly_once=True`` to Redis: how often the server lacked what it had acknowledged before, as after a
    fail-over to a replica that was behind; the log says which, and why. Such messages are not in the table any more."""
    pauses: Sequence[StoredPause] = ()
    """Pauses for all processes, as this one knows them, of the forwarder, of queues that it takes rows from, and of
    keys; each says who, when, why and until."""
    pauses_known: bool = True
    """False: the control table was not read since the start. Nothing is taken until it is; the log says why."""
    blocked_by: Sequence[str] = ()
    """Sessions of the database that have held the lock of a shard with rows for longer than a hand-over takes, each in
    words: process, user, since when. Rows there wait until the session releases the lock."""

"""The routing keys behind which a queue takes no messages at present; all others go on."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from faststream_outbox._engine.backoff import Backoff
from faststream_outbox.forwarders.status import PartDown

RETRY_SECONDS = (0.1, 60.0)
"""Between two messages that try whether the queue takes them again: at first, and in the end."""

GRANTED = 2
"""How many messages may follow one that was taken: so their number doubles until nothing is kept back any more."""

HEALTHY = 256
"""So many that may follow are no limit: a hand-over has no more in flight."""

MOST_OUTAGES = 10_000
"""More routing keys than that are not remembered; each forgotten one is found out again by its next message."""


class QueueOutageError(Exception):
    """A queue that a message is bound for does not take it now, which says nothing of the message.

    The queue is full and rejects (``x-overflow: reject-publish``), or its process, its node or its majority is gone.
    Other queues of the same exchange may have got their copy.
    """

    @classmethod
    def of_nack(cls, exchange: str, routing_key: str) -> "QueueOutageError":
        """Return the error of a message that was answered by basic.nack."""
        where = f"the exchange {exchange!r} with the routing key {routing_key!r}" if exchange else repr(routing_key)
        return cls(f"RabbitMQ answered basic.nack for {where}: a queue is full and rejects, or its node is down")

    @classmethod
    def of_node(cls, queue: str) -> "QueueOutageError":
        """Return the error of a returned message whose queue is on a node that is down."""
        return cls(f"RabbitMQ returned a message for {queue!r}: the node that has this queue is down")


@dataclass(slots=True)
class _Outage:
    error: QueueOutageError
    since: float
    next_try: float
    tries: int = 0
    """Messages that were not taken."""
    is_over: bool = False
    """Whether a message was taken since the last one that was not."""
    granted: int = 0
    """How many more may be sent before another one is taken."""
    backoff: Backoff = field(default_factory=lambda: Backoff(*RETRY_SECONDS))


class Outages:
    """What the lanes of a forwarder know of queues that take nothing.

    Once a message was not taken, none is sent with its routing key until a delay is over, and then one tries alone.
    When it is taken two may follow, then four, and so on: each message that is not taken gives the other queues of the
    exchange a copy in vain.
    """

    def __init__(self) -> None:
        self._outages: dict[str, _Outage] = {}

    def __bool__(self) -> bool:
        return bool(self._outages)

    def keeps_back(self, routing_key: str) -> QueueOutageError | None:
        """Return why the next message with a routing key must wait; None if it can be sent."""
        outage = self._outages.get(routing_key)
        if outage is None:
            return None
        if outage.granted > 0:
            outage.granted -= 1
            return None
        now = time.monotonic()
        if now < outage.next_try:
            return outage.error
        # Should its answer never come, another one tries after the same time.
        outage.next_try = now + outage.backoff.next()
        return None

    def failed(self, routing_key: str, error: QueueOutageError) -> None:
        """Note that a message was not taken, and why."""
        now = time.monotonic()
        outage = self._outages.get(routing_key)
        if outage is None:
            if len(self._outages) >= MOST_OUTAGES:
                self._outages.pop(next(iter(self._outages)))
            outage = _Outage(error, since=now, next_try=now, is_over=True)
            self._outages[routing_key] = outage
        outage.error = error
        outage.tries += 1
        if outage.is_over:
            # Others that were in flight beside it put nothing off.
            outage.is_over, outage.granted, outage.since = False, 0, now
            outage.next_try = now + outage.backoff.next()

    def taken(self, routing_key: str) -> None:
        """Note that a message was taken."""
        outage = self._outages.get(routing_key)
        if outage is None:
            return
        if not outage.is_over:
            # A queue that takes one now and then is tried about as often as that.
            outage.backoff.ease()
            outage.is_over = True
        outage.granted += GRANTED
        if outage.granted >= HEALTHY:
            del self._outages[routing_key]

    def down(self) -> Sequence[PartDown]:
        """Return the routing keys with which nothing can be sent, as far as is known."""
        now = time.monotonic()
        return [
            PartDown(name=routing_key, error=str(outage.error), seconds=now - outage.since, tries=outage.tries)
            for routing_key, outage in self._outages.items()
            if not outage.is_over
        ]

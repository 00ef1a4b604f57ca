"""The parts of a destination that take no messages at present, while the others do."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from faststream_outbox._engine.backoff import Backoff
from faststream_outbox.forwarders.status import PartDown

RETRY_SECONDS = (0.1, 60.0)
"""Between two messages that try whether a part takes them again: at first, and in the end."""

GRANTED = 2
"""How many messages may follow one that was taken: so their number doubles until nothing is kept back any more."""

HEALTHY = 256
"""So many that may follow are no limit: a hand-over has no more in flight."""

HELD_SECONDS = 1.0
"""While a lane tries a part, the next try is at least so far away."""

FORGOTTEN_SECONDS = 120.0
"""A part that no message has tried for so long after its time is forgotten: the messages for it are gone, or another
process has sent them. If it is still down, its next message finds that out."""

MOST_OUTAGES = 10_000
"""More parts than that are not remembered; each forgotten one is found out again by its next message."""


@dataclass(slots=True)
class _Outage:
    error: Exception
    since: float
    next_try: float
    backoff: Backoff
    tries: int = 0
    """Messages that were not taken."""
    is_over: bool = False
    """Whether a message was taken since the last one that was not."""
    granted: int = 0
    """How many more may be sent before another one is taken."""
    holder: object = None
    """The lane that waits for an answer to a try; meanwhile no other one tries."""


class Outages:
    """What the lanes of a forwarder know of parts that take nothing: RabbitMQ's routing keys, Kafka's partitions.

    Once a message was not taken, none is sent to its part until a delay is over, and then one tries alone.
    When it is taken two may follow, then four, and so on: each message that is not taken gives the other queues of a
    RabbitMQ exchange a copy in vain.

    Args:
        retry_seconds: Between two tries: at first, and in the end.
    """

    def __init__(self, retry_seconds: tuple[float, float] = RETRY_SECONDS) -> None:
        self._retry_seconds = retry_seconds
        self._outages: dict[str, _Outage] = {}

    def __bool__(self) -> bool:
        return bool(self._outages)

    def _of(self, part: str) -> _Outage | None:
        """Return the outage of a part, unless it is to be forgotten."""
        outage = self._outages.get(part)
        if outage is not None and outage.holder is None and time.monotonic() - outage.next_try > FORGOTTEN_SECONDS:
            self._outages.pop(part, None)
            return None
        return outage

    def _all(self) -> Mapping[str, _Outage]:
        """Return the outages that are not to be forgotten."""
        for part in [*self._outages]:
            self._of(part)
        return self._outages

    def keeps_back(self, part: str) -> Exception | None:
        """Return why the next message to a part must wait; None if it can be sent."""
        outage = self._of(part)
        if outage is None:
            return None
        if outage.granted > 0:
            outage.granted -= 1
            return None
        now = time.monotonic()
        if now < outage.next_try or outage.holder is not None:
            return outage.error
        # Should its answer never come, another one tries after the same time.
        outage.next_try = now + outage.backoff.next()
        return None

    def hold(self, part: str, holder: object) -> None:
        """Note that a lane tries a part, whatever time that takes."""
        if (outage := self._of(part)) is not None:
            outage.holder = holder

    def is_held_by(self, holder: object, part: str) -> bool:
        """Return whether it is this lane that tries a part."""
        outage = self._of(part)
        return outage is not None and outage.holder is holder

    def release(self, holder: object) -> None:
        """Note that a lane waits for no answer any more."""
        for outage in self._outages.values():
            if outage.holder is holder:
                outage.holder = None

    def due(self, part: str) -> None:
        """Note that a part is to be tried now."""
        if (outage := self._of(part)) is not None:
            outage.next_try = time.monotonic()

    def error_of(self, part: str) -> Exception | None:
        """Return why the last message to a part was not taken; None if nothing is wrong."""
        outage = self._of(part)
        return None if outage is None or outage.is_over else outage.error

    def failed(self, part: str, error: Exception) -> None:
        """Note that a message was not taken, and why."""
        now = time.monotonic()
        outage = self._of(part)
        if outage is None:
            if len(self._outages) >= MOST_OUTAGES:
                self._outages.pop(next(iter(self._outages)))
            outage = _Outage(error, since=now, next_try=now, backoff=Backoff(*self._retry_seconds), is_over=True)
            self._outages[part] = outage
        outage.error = error
        outage.tries += 1
        if outage.is_over:
            # Others that were in flight beside it put nothing off.
            outage.is_over, outage.granted, outage.since = False, 0, now
            outage.next_try = now + outage.backoff.next()

    def taken(self, part: str) -> None:
        """Note that a message was taken."""
        outage = self._outages.get(part)
        if outage is None:
            return
        if not outage.is_over:
            # A part that takes one now and then is tried about as often as that.
            outage.backoff.ease()
            outage.is_over = True
        outage.granted += GRANTED
        if outage.granted >= HEALTHY:
            del self._outages[part]

    def is_to_wait(self, part: str) -> bool:
        """Return whether nothing may be sent to a part now."""
        return (self.seconds_to_next_try(part) or 0.0) > 0.0

    def over(self, part: str) -> None:
        """Note that a part takes all messages again."""
        self._outages.pop(part, None)

    def is_down(self, part: str) -> bool:
        """Return whether nothing can be sent to a part, as far as is known."""
        outage = self._of(part)
        return outage is not None and not outage.is_over

    @property
    def is_due(self) -> bool:
        """Whether it is time that a message tries one of the parts."""
        now = time.monotonic()
        return any(not outage.is_over and now >= outage.next_try for outage in self._all().values())

    def seconds_to_next_try(self, part: str) -> float | None:
        """Return how long until a message tries a part again; None where the part takes messages."""
        outage = self._of(part)
        if outage is None or outage.is_over:
            return None
        return max(0.0 if outage.holder is None else HELD_SECONDS, outage.next_try - time.monotonic())

    def down(self) -> Sequence[PartDown]:
        """Return the parts to which nothing can be sent, as far as is known."""
        now = time.monotonic()
        return [
            PartDown(name=part, error=str(outage.error), seconds=now - outage.since, tries=outage.tries)
            # A copy: metrics are read in other threads too.
            for part, outage in [*self._all().items()]
            if not outage.is_over
        ]

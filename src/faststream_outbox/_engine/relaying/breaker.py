"""Keeps the lanes of a forwarder away from a destination that is down, all but one that tries it now and then."""

import time
from collections.abc import AsyncIterator, Callable, Collection, Hashable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import StrEnum

from tenacity import RetryCallState, Retrying
from tenacity.wait import wait_base, wait_random_exponential

from faststream_outbox._engine.health import Health
from faststream_outbox._engine.relaying.signal import Signal

PROBE_DELAY = wait_random_exponential(multiplier=0.1, min=0.05, max=5.0)
"""Seconds between two probes: drawn from 0.05 to 0.1 at first, and to 5 in the end. The randomness keeps many processes
from coming back to a recovering server in step."""


class BreakerState(StrEnum):
    """What a breaker lets through."""

    CLOSED = "closed"
    """Everything: the destination works, or most of it does."""
    OPEN = "open"
    """Nothing: the destination is down."""
    HALF_OPEN = "half-open"
    """One lane, which tries whether the destination works again; the others wait for what it finds."""


class Breaker:
    """The state of one destination, shared by the lanes of a forwarder.

    It opens when as many attempts as there are lanes, and one more, have failed without an answer in between. So
    trouble with the rows of one shard does not keep rows of the others back. It closes when the destination has
    answered, or can be connected to and there is nothing to send.

    The log hears of an outage when the first attempt fails, and of its end when nothing that failed is left: where a
    part is down, successes of the others do not end it.

    Args:
        health: The destination's; says in the log what has changed.
        lanes: How many share it.
        delay: Gives the seconds between two probes.
        on_reached: Called when a lane has connected for the first time.
        are_parts_down: Whether rows wait, out of the way of the others, for a part of the destination that is down.
    """

    def __init__(
        self,
        health: Health,
        lanes: int,
        delay: wait_base = PROBE_DELAY,
        *,
        on_reached: Callable[[], None] = lambda: None,
        are_parts_down: Callable[[], bool] = lambda: False,
    ) -> None:
        self.state = BreakerState.CLOSED
        self.was_reached = False
        """Whether a lane has ever connected."""
        self._health = health
        self.lanes = lanes
        self._delay = delay
        self._on_reached = on_reached
        self._are_parts_down = are_parts_down
        self._changed = Signal()
        self._failures = 0
        """Without an answer in between."""
        self._probes = 0
        self._next_probe = 0.0
        self._is_probing = False
        self._turns = 0
        """Lanes at work."""
        self._have_met = False
        """Whether one of those has begun while another was at work."""
        self._troubled: set[Hashable] = set()
        """Shards whose rows the destination did not take, and that have not been seen to work since."""
        self._unconnected: set[Hashable] = set()
        """Lanes that could not connect."""

    @property
    def last_error(self) -> BaseException | None:
        """Why rows cannot be sent now, or some of them; None when all is well."""
        return self._health.last_error

    def wake(self) -> None:
        """End the waiting of all lanes: one of them has something else to look at."""
        self._changed.send()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Wait until a lane may use the destination, or something has changed; yield whether it may.

        A turn that ends without anything noted leaves the state as it is: another lane may try next.
        """
        is_probe = self.state is not BreakerState.CLOSED
        if is_probe and not self._may_probe():
            await self._changed.wait(None if self._is_probing else max(0.0, self._next_probe - time.monotonic()))
            yield False
            return
        if is_probe:
            self.state, self._is_probing = BreakerState.HALF_OPEN, True
        self._have_met = self._turns > 0
        self._turns += 1
        try:
            yield True
        finally:
            self._turns -= 1
            if is_probe:
                self._is_probing = False
                self._changed.send()

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Hold shards within it and leave the destination alone: meanwhile others may find nothing to send."""
        self._turns += 1
        self._have_met = True
        try:
            yield
        finally:
            self._turns -= 1

    def connected(self, lane: Hashable) -> None:
        """Note that a lane is connected. An outage is not over by this: that rows can be sent is still to be seen."""
        if not self.was_reached:
            self.was_reached = True
            self._on_reached()
        if lane in self._unconnected:
            self._unconnected.discard(lane)
            if self._failures == 0:
                # Another lane has seen it already.
                self._settled(())

    def cannot_connect(self, lane: Hashable, error: BaseException) -> float:
        """Note that a lane could not connect; return the seconds for which it should leave the destination alone."""
        self._unconnected.add(lane)
        self._health.failed(error)
        return self._count_failure()

    def note(
        self,
        shards: Collection[Hashable],
        *,
        answered: bool,
        trouble: BaseException | None,
        partly: BaseException | None = None,
    ) -> float:
        """Note what has come of a hand-over.

        Args:
            shards: Where its rows come from.
            answered: Whether the destination accepted or refused a row.
            trouble: Why it did not take others.
            partly: Why a part of it did not, which it tries again by itself: the log and the status say so, and the
                others go on.

        Returns:
            Seconds for which the lane should leave the destination alone.
        """
        if partly is not None:
            self._troubled.update(shards)
            self._health.failed(trouble or partly)
        if answered or (partly is not None and trouble is None):
            if self.state is not BreakerState.CLOSED:
                # What kept the other lanes from connecting is over, too; or they will say so again.
                self._unconnected.clear()
            self._close()
        if trouble is not None:
            self._troubled.update(shards)
            self._health.failed(trouble)
            return self._seconds(1) if answered else self._count_failure()
        if answered and partly is None:
            self._settled(shards)
        return 0.0

    def idle(self, shards: Iterable[Hashable]) -> None:
        """Note that there is nothing to send from these shards, while the lane is connected."""
        if self._have_met:
            # Another lane may have had just their rows in hand.
            return
        self._settled(shards)
        if not self._is_troubled:
            self._close()

    @property
    def _is_troubled(self) -> bool:
        return bool(self._troubled or self._unconnected)

    def _may_probe(self) -> bool:
        return not self._is_probing and (self.state is BreakerState.HALF_OPEN or time.monotonic() >= self._next_probe)

    def _settled(self, shards: Iterable[Hashable]) -> None:
        self._troubled.difference_update(shards)
        if not self._is_troubled and not self._are_parts_down():
            self._health.recovered()

    def _close(self) -> None:
        self._failures = self._probes = 0
        if self.state is not BreakerState.CLOSED:
            self.state = BreakerState.CLOSED
            self._changed.send()

    def _count_failure(self) -> float:
        self._failures += 1
        if self.state is BreakerState.CLOSED and self._failures <= self.lanes:
            return self._seconds(1)
        if self.state is not BreakerState.OPEN:
            self.state = BreakerState.OPEN
            self._probes += 1
            self._next_probe = time.monotonic() + self._seconds(self._probes)
            self._changed.send()
        return 0.0

    def _seconds(self, attempt: int) -> float:
        state = RetryCallState(Retrying(), fn=None, args=(), kwargs={})
        state.attempt_number = attempt
        return self._delay(state)

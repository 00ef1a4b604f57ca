"""Finds queues that have rows and no consumer, and warns of them."""

import asyncio
import logging
import random
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice

from faststream_outbox._engine.health import Health, Log, quiet
from faststream_outbox._engine.rounds import Rounds
from faststream_outbox._engine.service import DATABASE_SECONDS, Service
from faststream_outbox._engine.watching.consumed import ANNOUNCE_SECONDS, Consumed
from faststream_outbox._engine.watching.reminder import MOST_COUNTED, describe_lag
from faststream_outbox._store.protocol import Lag, Store
from faststream_outbox._values.copies import SEPARATOR
from faststream_outbox.checks import closest
from faststream_outbox.schema import SHARDS

LOOK_SECONDS = 30.0
"""Twice in the time before a warning, since a queue's first row must be the same at two looks."""

UNCONSUMED_SECONDS = 60.0
"""How long a queue's first row has waited when the log warns that the queue has no consumer."""

MOST_COMPARED = 1000
"""Names among which the nearest is looked for; to compare with one takes some microseconds."""

MOST_QUEUES = 20
"""Queues that one look finds; where there are more, these are enough to know what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnconsumedQueue:
    """A queue that has rows to be taken, and that no process is known to consume."""

    queue: str
    rows: int
    """Rows that could be taken now; of a long backlog only the first ones are counted."""
    seconds: float
    """For how long the first of them could have been taken, by the database's clock."""
    nearest: str | None
    """The consumed queue whose name is most like it, if any is: what a publisher with a typo meant."""


class QueueWatcher(Service):
    """Announces which queues this process consumes, and looks for queues that no process consumes.

    Nothing depends on it, so a failure here is a line at INFO, and the next look tries again.

    Args:
        store: Where rows are.
        consumed: What is known of consumers.
        database: The database's health: while it is down, nothing is asked.
        log: Where to say it.
    """

    def __init__(self, store: Store, consumed: Consumed, database: Health, log: Log) -> None:
        super().__init__(
            "outbox-queue-watcher", Health("look for queues that nobody consumes", quiet(log), store.explain)
        )
        self._store = store
        self._consumed = consumed
        self._database = database
        self._log = log
        self._next_announcement = 0.0
        self._waited: dict[str, tuple[float, float]] = {}
        """When a queue was last found, and for how long its first row had waited by then."""
        self._told: set[str] = set()

    async def run_once(self) -> None:
        # Drawn, so that the processes of a deployment do not all look at once.
        await self.sleep(LOOK_SECONDS * random.uniform(0.8, 1.0))  # noqa: S311 - nothing secret depends on it
        if self.is_stopping:
            return
        # Also while a loop cannot work: this process consumes what it can, and others must not think otherwise.
        await self._announce()
        if self._consumed.is_complete and not self._database.is_down:
            self._tell(await self.look())
        self.health.recovered(self.name)

    async def _announce(self) -> None:
        if time.monotonic() < self._next_announcement or not self._consumed.own:
            return
        async with asyncio.timeout(DATABASE_SECONDS):
            await self._store.announce(sorted(self._consumed.own))
        # A little early, since looks do not come in its step.
        self._next_announcement = time.monotonic() + ANNOUNCE_SECONDS - LOOK_SECONDS / 2

    async def look(self) -> list[UnconsumedQueue]:
        """Return queues that have rows to be taken and no known consumer, the longest wait first."""
        consumed = self._consumed.names()
        async with asyncio.timeout(DATABASE_SECONDS):
            names = await self._store.unconsumed(sorted(consumed), limit=MOST_QUEUES)
            lags = [await self._store.lag(Rounds([name], SHARDS).all, at_most=MOST_COUNTED) for name in names]
        found = [_found(name, lag, consumed) for name, lag in zip(names, lags, strict=True) if lag.rows]
        return sorted(found, key=lambda each: each.seconds, reverse=True)

    def _tell(self, found: Sequence[UnconsumedQueue]) -> None:
        before, self._waited = self._waited, {}
        now = time.monotonic()
        for each in found:
            self._waited[each.queue] = (now, each.seconds)
            if each.queue in before and each.queue not in self._told and _stands(each, before[each.queue], now):
                self._told.add(each.queue)
                self._log(logging.WARNING, _sentence(each), None)
        self._told &= self._waited.keys()


def _stands(each: UnconsumedQueue, before: tuple[float, float], now: float) -> bool:
    """Return whether the first row is the same as at the last look: an unheard consumer would have taken it."""
    then, waited = before
    return each.seconds >= UNCONSUMED_SECONDS and each.seconds - waited >= 0.9 * (now - then)


def _found(queue: str, lag: Lag, consumed: Collection[str]) -> UnconsumedQueue:
    near = closest(queue, islice(consumed, MOST_COMPARED))
    return UnconsumedQueue(queue=queue, rows=lag.rows, seconds=lag.seconds, nearest=near)


def _sentence(each: UnconsumedQueue) -> str:
    origin, is_copy, name = each.queue.partition(SEPARATOR)
    kind = f"copies of {origin!r} for a forwarder {name!r} with tee=True" if is_copy else f"queue {each.queue!r}"
    near = f"; did you mean {each.nearest!r}?" if each.nearest else ""
    return f"nobody consumes {kind}: {describe_lag(Lag(each.rows, each.seconds))}{near}"

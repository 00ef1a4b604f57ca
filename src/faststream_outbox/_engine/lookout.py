"""Looks at the table for all loops of a process that rest, so that many cost as little as one."""

import asyncio
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from faststream_outbox._engine.health import Health
from faststream_outbox._engine.service import DATABASE_SECONDS, Service
from faststream_outbox._store.protocol import Outlook, Store
from faststream_outbox._values.shard import Shard
from faststream_outbox.schema import SHARDS


class Sleeper(Protocol):
    """A loop that rests."""

    look_from: float
    """When it can be told what there is to do, by ``time.monotonic()``: with the look for another one, perhaps."""
    look_at: float
    """When it is to be told at the latest; both are later after each answer."""

    @property
    def queues(self) -> Sequence[str]:
        """The names of the queues where its work would be."""

    def heard(self, outlook: Outlook) -> None:
        """Take what there is to do in its queues."""

    def unheard(self) -> None:
        """Take that nobody knows what there is to do."""


class Lookout(Service):
    """Asks the store for all sleepers at once what there is to do, and lets each of them decide whether it wakes up.

    A look is made when the first sleeper wants one, and is for all that can do with it. So sleepers with the same
    interval soon share all their looks, and a hundred of them cost one statement in each interval.

    Args:
        store: Where rows are.
        health: The database's.
    """

    def __init__(self, store: Store, health: Health) -> None:
        super().__init__("outbox-lookout", health)
        self._store = store
        self._sleepers: dict[object, Sleeper] = {}
        """By their rests: what is asked for one rest is no answer to the next one of the same sleeper."""
        self._next_look = math.inf
        self._is_sooner = asyncio.Event()

    @contextmanager
    def beside(self, sleeper: Sleeper) -> Iterator[None]:
        """Look for a sleeper while it rests within this context."""
        rest = object()
        self._sleepers[rest] = sleeper
        if sleeper.look_at < self._next_look:
            self._is_sooner.set()
        try:
            yield
        finally:
            del self._sleepers[rest]

    def interrupt(self) -> None:
        self._is_sooner.set()

    async def run_once(self) -> None:
        if not await self._is_time():
            return
        now = time.monotonic()
        asking = [(*each, each[1].queues) for each in self._sleepers.items() if each[1].look_from <= now]
        try:
            found = await self._look(dict.fromkeys(queue for *_, queues in asking for queue in queues))
        except BaseException:
            # Each looks itself, and says what is wrong: nobody sleeps on because this look fails.
            for rest, sleeper, _ in asking:
                if rest in self._sleepers:
                    sleeper.unheard()
            raise
        for rest, sleeper, queues in asking:
            if rest in self._sleepers:
                sleeper.heard(together([found[queue] for queue in queues if queue in found]))

    async def _is_time(self) -> bool:
        """Wait until a sleeper wants a look; return whether one does."""
        self._is_sooner.clear()
        self._next_look = min((sleeper.look_at for sleeper in self._sleepers.values()), default=math.inf)
        seconds = self._next_look - time.monotonic()
        with self.resting():
            try:
                async with asyncio.timeout(None if math.isinf(seconds) else seconds):
                    await self._is_sooner.wait()
            except TimeoutError:
                return not self.is_stopping
            finally:
                self._next_look = -math.inf
        return False

    async def _look(self, queues: Collection[str]) -> Mapping[str, Outlook]:
        if not queues:
            return {}
        async with asyncio.timeout(DATABASE_SECONDS):
            found = await self._store.outlook([Shard(queue, number) for queue in queues for number in range(SHARDS)])
        self.health.recovered(self.name)
        return found


def together(outlooks: Sequence[Outlook]) -> Outlook:
    """Return what there is to do in several queues."""
    times = [outlook.seconds for outlook in outlooks if outlook.seconds is not None]
    return Outlook(any(outlook.is_ready for outlook in outlooks), min(times, default=None))

"""Work that is done at intervals, and less often while it takes long."""

import asyncio
import time
from abc import abstractmethod

from faststream_outbox._engine.health import Health
from faststream_outbox._engine.service import Service

TIMES_APART = 10
"""A round takes milliseconds, and seconds after hours of an open snapshot: the next waits this many times as long."""


class Chore(Service):
    """A service that waits, then does its work, and so keeps the database busy for a tenth of the time at most.

    Args:
        name: The loop's name.
        health: Where its failures are noted.
        interval: Seconds between two rounds.
        longest: Seconds that a round waits at most: also after one in which the process, or its machine, was asleep.
        limit: Seconds after which a round is given up.
    """

    def __init__(self, name: str, health: Health, *, interval: float, longest: float, limit: float) -> None:
        super().__init__(name, health)
        self.interval = interval
        self._longest = longest
        self.limit = limit
        self._took = 0.0
        """Seconds of the last round that came to its end, or was given up."""

    @abstractmethod
    async def work(self) -> None:
        """Run the work once, and note in ``health`` that it was done."""

    async def run_once(self) -> None:
        await self.sleep(max(self.interval, min(TIMES_APART * self._took, self._longest)))
        if self.is_stopping:
            return
        began = time.monotonic()
        limit = asyncio.timeout(self.limit)
        try:
            async with limit:
                await self.work()
        except BaseException:
            # What fails otherwise says nothing of how long the work takes.
            if limit.expired():
                self._took = time.monotonic() - began
            raise
        self._took = time.monotonic() - began

"""When to look for rows again."""

import asyncio
import math
from collections.abc import Awaitable, Callable

from faststream_outbox._engine.service import DATABASE_SECONDS
from faststream_outbox._engine.wakeups import Wakeup

AFTERLOOK_SECONDS = 0.05
"""A rest begins with so long a wait for a bell: while rows come in all the time, nobody needs to know when the first
waiting one is due. After rows were found, one more look shows it."""


class Pacer:
    """Rests between two looks: until a wake-up, until a waiting row is due, or for a polling interval that grows.

    A loop clears the bell before it looks, so a ring during the look ends the next rest at once.

    Args:
        wakeup: Rings when there may be new rows.
        seconds_to_next_due: Asks the store how long until the first waiting row is due.
        shortest: The first polling interval without rows, in seconds.
        longest: Where the interval stops growing, in seconds.
    """

    def __init__(
        self,
        wakeup: Wakeup,
        seconds_to_next_due: Callable[[], Awaitable[float | None]],
        *,
        shortest: float,
        longest: float,
    ) -> None:
        self._wakeup = wakeup
        self._seconds_to_next_due = seconds_to_next_due
        self._shortest = shortest
        self._longest = longest
        self._interval = shortest
        self._overdue = 0.0

    async def rest(self, *, found: bool, at_most: float = math.inf) -> None:
        """Wait after a look that took all there was. What rang since it began ends the rest at once.

        Args:
            found: Whether the look found rows.
            at_most: Seconds after which there is something to look at that does not ring.
        """
        if found:
            self._interval = self._shortest
            self._overdue = 0.0
        await self._wakeup.wait(min(AFTERLOOK_SECONDS, self._shortest))
        if not found and not self._wakeup.is_rung:
            await self._rest_longer(at_most)

    async def _rest_longer(self, at_most: float) -> None:
        async with asyncio.timeout(DATABASE_SECONDS):
            due = await self._seconds_to_next_due()
        await self._wakeup.wait(min(self._until(due), self._interval, at_most))
        self._interval = min(self._longest, self._interval * 2)

    def _until(self, due: float | None) -> float:
        if due is None:
            return self._interval
        if due > 0:
            self._overdue = 0.0
            return due
        # Its time has come, and the look did not get it: someone else has it just now, or an earlier row of its key
        # holds it back. To look at once, again and again, would be a busy loop for as long as that lasts.
        self._overdue = max(AFTERLOOK_SECONDS, min(self._longest, self._overdue * 2))
        return self._overdue

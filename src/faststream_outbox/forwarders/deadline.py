"""Bounds the hand-overs of a lane, and can be moved up when its forwarder stops."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Deadline:
    """The time-out of one lane's hand-overs, of which there is one at a time.

    Args:
        seconds: For each.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._latest = math.inf
        self._current: asyncio.Timeout | None = None

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Bound a hand-over; raise TimeoutError when its time is over."""
        async with asyncio.timeout_at(min(_now() + self._seconds, self._latest)) as timeout:
            self._current = timeout
            try:
                yield
            finally:
                self._current = None

    def finish(self, grace: float) -> None:
        """Limit the hand-over in flight, and all later ones, to ``grace`` seconds from now."""
        self._latest = min(self._latest, _now() + grace)
        if self._current is not None and not self._current.expired():
            self._current.reschedule(min(self._latest, self._current.when() or self._latest))


def _now() -> float:
    return asyncio.get_running_loop().time()

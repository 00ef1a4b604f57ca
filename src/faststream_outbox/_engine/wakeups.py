"""Who is to be woken when a queue has new rows."""

import asyncio
from collections.abc import Sequence
from weakref import WeakSet


class Wakeup:
    """One sleeper's bell. It stays rung until it is cleared, so that no wake-up between two looks is lost."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    @property
    def is_rung(self) -> bool:
        return self._rung.is_set()

    def ring(self) -> None:
        self._rung.set()

    def clear(self) -> None:
        self._rung.clear()

    async def wait(self, seconds: float | None) -> None:
        """Wait until it rings, but no longer than ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            pass


class Wakeups:
    """All sleepers of a process, by queue. Whoever lets go of a bell is forgotten."""

    def __init__(self) -> None:
        self._sleepers: dict[str, WeakSet[Wakeup]] = {}

    def register(self, queues: Sequence[str]) -> Wakeup:
        """Make a bell that rings for each of these queues."""
        wakeup = Wakeup()
        for queue in queues:
            self._sleepers.setdefault(queue, WeakSet()).add(wakeup)
        return wakeup

    def wake(self, queue: str) -> None:
        for wakeup in self._sleepers.get(queue, ()):
            wakeup.ring()

    def wake_all(self) -> None:
        for queue in self._sleepers:
            self.wake(queue)

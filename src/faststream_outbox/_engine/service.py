"""The one way in which every loop starts, fails and stops."""

import asyncio
from abc import ABC, abstractmethod

from faststream_outbox._engine.backoff import Backoff
from faststream_outbox._engine.health import Health


class Service(ABC):
    """A named background loop around ``run_once``.

    An exception in ``run_once`` never ends the loop: it is noted in ``health`` and tried again after a growing delay.
    ``start`` and ``stop`` may be called any number of times.
    """

    def __init__(self, name: str, health: Health) -> None:
        self.name = name
        self.health = health
        self._backoff = Backoff()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def run_once(self) -> None:
        """Do one round of the work; wait here when there is none."""

    def interrupt(self) -> None:  # noqa: B027 - a loop that only ever sleeps in ``sleep`` needs none
        """Wake ``run_once`` where it waits for work, because the service stops."""

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def start(self) -> None:
        """Run the loop in a task of its own."""
        if self._task is None:
            self._stopping.clear()
            self._task = asyncio.create_task(self._loop(), name=self.name)

    async def stop(self, grace: float = 0.0) -> None:
        """End the loop: let the present round finish for up to ``grace`` seconds, then cancel it."""
        task, self._task = self._task, None
        if task is None:
            return
        self._stopping.set()
        self.interrupt()
        try:
            await asyncio.wait([task], timeout=grace)
        finally:
            # Also when the wait itself is cancelled: the loop must not outlive its service.
            task.cancel()
        await asyncio.wait([task])

    async def sleep(self, seconds: float) -> None:
        """Sleep, but not through a stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    def has_more(self) -> bool:
        """Tell whether a stopping service still has work that it must finish."""
        return False

    async def _loop(self) -> None:
        while not self.is_stopping or self.has_more():
            try:
                await self.run_once()
            except Exception as error:  # noqa: BLE001 - a loop outlives every error of its work
                self.health.failed(error)
                await self._rest_after_failure()
            else:
                self._backoff.reset()

    async def _rest_after_failure(self) -> None:
        delay = self._backoff.next()
        if self.is_stopping:
            # ``sleep`` would return at once and turn the last rounds of a stop into a busy loop.
            await asyncio.sleep(delay)
        else:
            await self.sleep(delay)

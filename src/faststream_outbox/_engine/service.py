"""The one way in which every loop starts, fails and stops."""

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from faststream_outbox._engine.backoff import Backoff
from faststream_outbox._engine.health import Health

CANCEL_SECONDS = 3.0
"""How long cancelled work may take to end: SQLAlchemy and the listener give a connection 2 s to close."""

DATABASE_SECONDS = 30.0
"""When a call of the store is given up. In a network that drops packets, a connection can stay silent for many minutes;
half of the default lease is left to renew over another one."""

STALLED_SECONDS = 10 * DATABASE_SECONDS
"""A loop that works for so long without a rest hangs: each of its calls has a time-out, and a round makes a few."""

LONG_ROUND_SECONDS = 5.0
"""A round that lasted this long before it failed had worked: its failure is the first of its kind, not the next."""


def is_cancelled() -> bool:
    """Return whether the running task itself was cancelled, and not only something that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def forget_cancellation() -> None:
    """Take back every cancellation that the work has swallowed.

    There are libraries that cancel the running task for a time-out of theirs and do not take it back (async-timeout
    before 4.0.3). The next error would be taken for the answer to a stop.
    """
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


async def stop_tasks(tasks: Collection[asyncio.Task[Any]], grace: float | None) -> set[asyncio.Task[Any]]:
    """Wait up to ``grace`` seconds (None: for ever) until tasks end, then cancel them.

    Returns:
        The tasks that did not end although they were cancelled; no one waits for them any longer.
    """
    if not tasks:
        return set()
    pending = set(tasks)
    try:
        _, pending = await asyncio.wait(tasks, timeout=grace)
    finally:
        # Also when the wait itself is cancelled: no task may outlive its owner.
        for task in pending:
            task.cancel()
    if pending:
        _, pending = await asyncio.wait(pending, timeout=CANCEL_SECONDS)
    return pending


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
        self._busy_since = math.inf
        """When it has begun to work after its last rest; infinity while it rests."""
        self.longest_work = STALLED_SECONDS
        """Seconds that it works at most between two rests."""

    @abstractmethod
    async def run_once(self) -> None:
        """Run one round of the work; wait here if there is none."""

    def interrupt(self) -> None:  # noqa: B027 - a loop that only ever sleeps in ``sleep`` needs none
        """Wake ``run_once`` where it waits for work, because the service stops."""

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    @property
    def stalled(self) -> Sequence[str]:
        """What is wrong with the loop: it has ended and nobody has stopped it, or it hangs; empty if it beats."""
        if self._task is None or self.is_stopping:
            return ()
        if self._task.done():
            return (f"{self.name} has ended",)
        busy = time.monotonic() - self._busy_since
        return (f"{self.name} hangs for {busy:.0f} s",) if busy > self.longest_work else ()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Wait inside of it for what may take any time: it is no sign that the loop hangs."""
        self._busy_since = math.inf
        try:
            yield
        finally:
            self._busy_since = time.monotonic()

    def start(self) -> None:
        """Run the loop in a task of its own.

        Raises:
            RuntimeError: A stop has not ended yet; there must not be two loops.
        """
        if self._task is not None and not self._task.done():
            if self.is_stopping:
                msg = f"{self.name} is still stopping"
                raise RuntimeError(msg)
            return
        self._stopping.clear()
        self._task = asyncio.create_task(self._loop(), name=self.name)

    def begin_stop(self) -> None:
        """Signal the loop to end after the present round, and return without waiting for it."""
        self._stopping.set()
        self.interrupt()

    async def stop(self, grace: float | None = 0.0) -> None:
        """End the loop: let the present round finish for up to ``grace`` seconds (None: for ever), then cancel it.

        Whatever hangs, this returns within ``grace`` and ``CANCEL_SECONDS``.
        """
        self.begin_stop()
        if self._task is not None:
            await stop_tasks([self._task], grace)

    async def sleep(self, seconds: float) -> None:
        """Sleep, but not through a stop."""
        with self.resting():
            try:
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()
            except TimeoutError:
                pass

    def has_more(self) -> bool:
        """Return whether a stopping service still has work that it must finish."""
        return False

    async def _loop(self) -> None:
        while not self.is_stopping or self.has_more():
            began = self._busy_since = time.monotonic()
            try:
                await self.run_once()
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - a loop outlives every error of its work
                # A client may let out a cancellation of its own making, or answer ours with an error of its own.
                if is_cancelled() and (self.is_stopping or isinstance(error, asyncio.CancelledError)):
                    return
                forget_cancellation()
                if time.monotonic() - began > LONG_ROUND_SECONDS:
                    self._backoff.reset()
                self.health.failed(error, self.name)
                await self._rest_after_failure()
            else:
                forget_cancellation()
                self.health.passed(self.name)
                self._backoff.reset()

    async def _rest_after_failure(self) -> None:
        delay = self._backoff.next()
        if self.is_stopping:
            # ``sleep`` would return at once and turn the last rounds of a stop into a busy loop.
            await asyncio.sleep(delay)
        else:
            await self.sleep(delay)

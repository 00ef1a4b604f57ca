"""Claims rows for a handler and runs them."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from faststream_outbox._engine.completer import Completer
from faststream_outbox._engine.fetcher import Fetcher
from faststream_outbox._engine.stock import Stock
from faststream_outbox._values.outcome import Outcome, Released, Settlement
from faststream_outbox._values.row import OutboxRow


class Consumer:
    """Runs ``execute`` for each claimed row, on a fixed number of workers, and hands in the outcomes.

    Args:
        name: Used in the names of tasks.
        execute: Runs the handler and says how it ended; it must not raise.
        workers: How many rows are worked on at a time.
        fetcher: Claims rows into the stock.
        stock: Rows on their way to the workers.
        completer: Writes outcomes.
    """

    def __init__(
        self,
        name: str,
        *,
        execute: Callable[[OutboxRow], Awaitable[Outcome]],
        workers: int,
        fetcher: Fetcher,
        stock: Stock,
        completer: Completer,
    ) -> None:
        self._name = name
        self._execute = execute
        self._workers = workers
        self._fetcher = fetcher
        self._stock = stock
        self._completer = completer
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to claim and to work; may be called again after a stop."""
        if self._tasks:
            return
        self._stock.open()
        self._fetcher.start()
        self._tasks = [
            asyncio.create_task(self._work(), name=f"outbox-worker-{self._name}-{number}")
            for number in range(self._workers)
        ]

    async def stop(self, grace: float | None) -> None:
        """Claim nothing more, let workers finish for up to ``grace`` seconds (None: for ever), give the rest back."""
        tasks, self._tasks = self._tasks, []
        deadline = None if grace is None else time.monotonic() + grace
        # A claim under way is waited for: cancelling it could leave rows leased that no one knows of.
        await self._fetcher.stop(grace=60.0 if grace is None else grace)
        self._give_back()
        while self._stock.busy and (deadline is None or time.monotonic() < deadline):
            await self._stock.wait_for_change(None if deadline is None else deadline - time.monotonic())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _give_back(self) -> None:
        for row in self._stock.empty():
            self._completer.put(Settlement(row, Released(started=False)))

    async def _work(self) -> None:
        while True:
            row = await self._stock.take()
            began = time.monotonic()
            outcome: Outcome = Released(started=True)
            try:
                outcome = await self._execute(row)
            finally:
                # Cancelled by a stop, the row is given back; else it has the outcome that its handler earned.
                self._completer.put(Settlement(row, outcome))
                self._stock.done(time.monotonic() - began)

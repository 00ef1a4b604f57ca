"""Claims rows for a handler and runs them."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from faststream_outbox._engine.failure import FailurePolicy
from faststream_outbox._engine.handling.completer import Completer
from faststream_outbox._engine.handling.fetcher import Fetcher
from faststream_outbox._engine.handling.leases import Leases
from faststream_outbox._engine.handling.stock import Stock
from faststream_outbox._engine.health import Log
from faststream_outbox._engine.meter import NO_METER, Meter
from faststream_outbox._engine.service import forget_cancellation, is_cancelled, stop_tasks
from faststream_outbox._values.outcome import Outcome, Released, Settlement, TextOf, describe
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.retry import DEFAULT_RETRY

CLAIM_SECONDS = 60.0
"""How long a stop without a limit waits for a claim: handlers may take for ever, the database may not."""


class Consumer:
    """Runs ``execute`` for each claimed row, on a fixed number of workers, and hands in the outcomes.

    Args:
        name: Used in the names of tasks and in the log.
        execute: Runs the handler and says how it ended. It should not raise; if it does, the row is retried.
        workers: How many rows are worked on at a time.
        fetcher: Claims rows into the stock.
        stock: Rows on their way to the workers.
        leases: Tells whether a row is still ours when its turn comes.
        completer: Writes outcomes.
        log: Gets a line for handlers that cannot be stopped, and for an ``execute`` that raised.
        meter: Told how each handler ended.
    """

    def __init__(
        self,
        name: str,
        *,
        execute: Callable[[OutboxRow], Awaitable[Outcome]],
        workers: int,
        fetcher: Fetcher,
        stock: Stock,
        leases: Leases,
        completer: Completer,
        log: Log,
        meter: Meter = NO_METER,
        text_of: TextOf = describe,
    ) -> None:
        self._name = name
        self._execute = execute
        self._workers = workers
        self._fetcher = fetcher
        self._stock = stock
        self._leases = leases
        self._completer = completer
        self._log = log
        self._meter = meter
        self._unexpected = FailurePolicy(retry=DEFAULT_RETRY, text_of=text_of)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to claim and to work; may be called again after a stop."""
        self._fetcher.start()
        if all(task.done() for task in self._tasks):
            self._tasks = [
                asyncio.create_task(self._work(), name=f"outbox-worker-{self._name}-{number}")
                for number in range(self._workers)
            ]

    @property
    def stalled(self) -> Sequence[str]:
        """What is wrong with its loops; empty if they beat. A handler may take as long as it likes."""
        ended = () if self._fetcher.is_stopping else [task.get_name() for task in self._tasks if task.done()]
        return (*self._fetcher.stalled, *(f"{name} has ended" for name in ended))

    async def stop(self, grace: float | None) -> None:
        """Claim nothing more, let workers finish for up to ``grace`` seconds (None: for ever), give the rest back.

        Returns within ``grace`` and the few seconds of ``CANCEL_SECONDS``, also when a handler ignores that it is
        cancelled. The row of such a handler is not given back, for it is still worked on: its lease runs out when it is
        renewed no more.
        """
        self._fetcher.begin_stop()
        self._give_back()
        await asyncio.gather(self._stop_claiming(grace), self._stop_working(grace))

    async def _stop_claiming(self, grace: float | None) -> None:
        try:
            # A claim under way is waited for: cancelling it could leave rows leased that no one knows of.
            await self._fetcher.stop(CLAIM_SECONDS if grace is None else grace)
        finally:
            self._give_back()

    async def _stop_working(self, grace: float | None) -> None:
        hanging = await stop_tasks(self._tasks, grace)
        if hanging:
            message = (
                f"{self._name}: {len(hanging)} handlers go on although they were cancelled; the stop does not wait"
            )
            self._log(logging.ERROR, message, None)

    def _give_back(self) -> None:
        for row in self._stock.empty():
            self._completer.put(Settlement(row, Released(started=False)))

    async def _work(self) -> None:
        while (row := await self._stock.take()) is not None:
            began = time.monotonic()
            try:
                # A lease that was lost while the row waited belongs to someone else by now.
                if row in self._leases:
                    await self._handle(row, began)
            finally:
                self._stock.done(time.monotonic() - began)
            forget_cancellation()

    async def _handle(self, row: OutboxRow, began: float) -> None:
        # What a row becomes whose handler is cut off.
        outcome: Outcome = Released(started=True)
        try:
            outcome = await self._execute(row)
        except (Exception, asyncio.CancelledError) as error:
            if not is_cancelled():
                outcome = self._after_error(row, error, time.monotonic() - began)
            elif isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._completer.put(Settlement(row, outcome))
            self._meter.handled(row, outcome, time.monotonic() - began)

    def _after_error(self, row: OutboxRow, error: BaseException, elapsed: float) -> Outcome:
        # Given back at once, the row would come again at once. As a failed attempt it waits, and is kept in the end.
        self._log(logging.ERROR, f"{self._name}: unexpected error at row {row.id} of {row.queue!r}", error)
        return self._unexpected.after_failure(row, error, elapsed=elapsed)

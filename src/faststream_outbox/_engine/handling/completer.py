"""Writes the outcomes of all handlers of a process."""

import asyncio
import time
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import islice

from faststream_outbox._engine.handling.leases import Leases
from faststream_outbox._engine.handling.set_aside import SetAside
from faststream_outbox._engine.health import Health, Log
from faststream_outbox._engine.meter import NO_METER, Meter
from faststream_outbox._engine.service import DATABASE_SECONDS, Service
from faststream_outbox._engine.wakeups import Wakeups
from faststream_outbox._store.protocol import Store
from faststream_outbox._values.outcome import Released, Retry, Settlement, Unwritten
from faststream_outbox._values.row import identity

MAX_WRITE = 1000
"""Rows in one write; it bounds the statement, the rest goes with the next one."""

GATHER_SECONDS = 0.005
"""The pause after a write. A write for forty rows costs little more than one for five, and quick handlers end that many
meanwhile. An outcome that comes after the pause is written at once."""


class Completer(Service):
    """Writes what has gathered while the previous write was under way, and in the short pause after it.

    A write that fails is tried again until it succeeds. If another holder has taken the row by then, the fence makes
    the late write change nothing. An outcome that the database refuses is set aside, and holds up no other.

    Args:
        store: Where to write.
        leases: Forgets each row whose outcome is written.
        wakeups: Rung for rows that come again.
        writes: Held during a write, so that all upkeep of a process shares one connection.
        health: The database's.
        log: Gets a line for rows that are set aside.
        meter: Told of each write.
    """

    def __init__(
        self,
        store: Store,
        leases: Leases,
        wakeups: Wakeups,
        writes: asyncio.Lock,
        health: Health,
        *,
        log: Log,
        meter: Meter = NO_METER,
    ) -> None:
        super().__init__("outbox-completer", health)
        self._store = store
        self._leases = leases
        self._wakeups = wakeups
        self._writes = writes
        self._pending: deque[Settlement] = deque()
        self._set_aside = SetAside(leases, log, store.explain)
        self._work = asyncio.Event()
        self._meter = meter

    @property
    def set_aside(self) -> int:
        """How many rows have an outcome that the database refuses."""
        return len(self._set_aside)

    @property
    def full_queues(self) -> Collection[str]:
        """Queues of which no more rows should be claimed, since it refuses the outcomes of very many."""
        return self._set_aside.full_queues

    @property
    def is_behind(self) -> bool:
        """Whether so much waits to be written that no more rows should be claimed."""
        return len(self._pending) >= MAX_WRITE

    def put(self, settlement: Settlement) -> None:
        """Hand in an outcome; it is written soon, and no one waits for it."""
        self._pending.append(settlement)
        self._work.set()

    def interrupt(self) -> None:
        # The last chance of what is set aside: behind the stop, its leases run out.
        self._set_aside.try_now()
        self._work.set()

    def has_more(self) -> bool:
        return bool(self._pending) or self._set_aside.is_due

    async def run_once(self) -> None:
        if self._set_aside.is_due:
            await self._try_again()
        elif await self._has_work():
            await self._write_pending()
            if not self.is_behind:
                await self.sleep(GATHER_SECONDS)
        self._set_aside.tell()

    async def _has_work(self) -> bool:
        """Wait for an outcome, or until those that are set aside are due."""
        with self.resting(), suppress(TimeoutError):
            async with asyncio.timeout(self._set_aside.seconds_to_next_try()):
                await self._work.wait()
        if not self._pending:
            self._work.clear()
        return bool(self._pending)

    async def _write_pending(self) -> None:
        batch = list(islice(self._pending, MAX_WRITE))
        unwritten = await self._settle(batch)
        # Only now: a write that failed, or was cut off, is made again.
        for _ in batch:
            self._pending.popleft()
        if unwritten:
            self._set_aside.keep(unwritten)
        self._finish(batch, unwritten)

    async def _try_again(self) -> None:
        settlements = self._set_aside.begin_try()
        for start in range(0, len(settlements), MAX_WRITE):
            batch = settlements[start : start + MAX_WRITE]
            unwritten = await self._settle(batch)
            self._set_aside.tried(batch, unwritten)
            self._finish(batch, unwritten)

    async def _settle(self, batch: Sequence[Settlement]) -> Sequence[Unwritten]:
        async with self._writes, asyncio.timeout(DATABASE_SECONDS):
            began = time.monotonic()
            unwritten = await self._store.settle(batch, token=self._leases.token.value)
        self._meter.settled(batch, unwritten, time.monotonic() - began)
        self.health.recovered(self.name)
        return unwritten

    def _finish(self, batch: Sequence[Settlement], unwritten: Sequence[Unwritten]) -> None:
        """Forget the rows whose outcomes are written."""
        left = {identity(each.settlement.row) for each in unwritten}
        for row, outcome in batch:
            if left and identity(row) in left:
                continue
            self._leases.let_go(row)
            if isinstance(outcome, Retry | Released):
                # A fetcher at rest does not know yet when this row is due.
                self._wakeups.wake(row.queue)

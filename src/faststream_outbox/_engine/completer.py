"""Writes the outcomes of all handlers of a process."""

import asyncio
from collections import deque
from itertools import islice

from faststream_outbox._engine.health import Health
from faststream_outbox._engine.leases import Leases
from faststream_outbox._engine.service import DATABASE_SECONDS, Service
from faststream_outbox._engine.wakeups import Wakeups
from faststream_outbox._store.protocol import Store
from faststream_outbox._values.outcome import Released, Retry, Settlement

MAX_WRITE = 1000
"""Rows in one write; it bounds the statement, the rest goes with the next one."""

GATHER_SECONDS = 0.005
"""The pause after a write. A write for forty rows costs little more than one for five, and quick handlers end that many
meanwhile; whoever hands in an outcome after the pause finds it written at once."""


class Completer(Service):
    """Writes what has gathered while the previous write was under way, and in the short pause after it.

    A write that fails is tried again until it succeeds. If another holder has taken the row by then, the fence makes
    the late write change nothing.

    Args:
        store: Where to write.
        leases: Told of each row whose outcome is written.
        wakeups: Rung for rows that come again.
        writes: Held during a write, so that all upkeep of a process shares one connection.
        health: The database's.
    """

    def __init__(self, store: Store, leases: Leases, wakeups: Wakeups, writes: asyncio.Lock, health: Health) -> None:
        super().__init__("outbox-completer", health)
        self._store = store
        self._leases = leases
        self._wakeups = wakeups
        self._writes = writes
        self._pending: deque[Settlement] = deque()
        self._work = asyncio.Event()

    @property
    def is_behind(self) -> bool:
        """Whether so much waits to be written that no more rows should be claimed."""
        return len(self._pending) >= MAX_WRITE

    def put(self, settlement: Settlement) -> None:
        """Hand in an outcome; it is written soon, and no one waits for it."""
        self._pending.append(settlement)
        self._work.set()

    def interrupt(self) -> None:
        self._work.set()

    def has_more(self) -> bool:
        return bool(self._pending)

    async def run_once(self) -> None:
        await self._work.wait()
        if not self._pending:
            self._work.clear()
            return
        batch = list(islice(self._pending, MAX_WRITE))
        async with self._writes, asyncio.timeout(DATABASE_SECONDS):
            await self._store.settle(batch, token=self._leases.token)
        # Only now: a write that failed, or was cut off, is made again.
        for row, outcome in batch:
            self._pending.popleft()
            self._leases.let_go(row)
            if isinstance(outcome, Retry | Released):
                # A fetcher at rest does not know yet when this row is due.
                self._wakeups.wake(row.queue)
        self.health.recovered()
        if not self.is_behind:
            await self.sleep(GATHER_SECONDS)

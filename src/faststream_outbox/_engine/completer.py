"""Writes the outcomes of all handlers of a process."""

import asyncio
from collections import deque

from faststream_outbox._engine.health import Health
from faststream_outbox._engine.leases import Leases
from faststream_outbox._engine.service import Service
from faststream_outbox._store.protocol import Store
from faststream_outbox._values.outcome import Settlement

MAX_WRITE = 1000
"""Rows in one write; it bounds the statement, the rest goes with the next one."""


class Completer(Service):
    """Writes what has gathered while the previous write was under way: no timer, and no latency added.

    A write that fails is tried again until it succeeds. If another holder has taken the row by then, the fence makes
    the late write change nothing.

    Args:
        store: Where to write.
        leases: Told of each row whose outcome is written.
        writes: Held during a write, so that all upkeep of a process shares one connection.
        health: The database's.
    """

    def __init__(self, store: Store, leases: Leases, writes: asyncio.Lock, health: Health) -> None:
        super().__init__("outbox-completer", health)
        self.token = ""
        self._store = store
        self._leases = leases
        self._writes = writes
        self._pending: deque[Settlement] = deque()
        self._work = asyncio.Event()

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
        batch = [self._pending[i] for i in range(min(MAX_WRITE, len(self._pending)))]
        async with self._writes:
            await self._store.settle(batch, token=self.token)
        # Only now: a write that failed, or was cut off, is made again.
        for row, _ in batch:
            self._pending.popleft()
            self._leases.let_go(row)
        self.health.recovered()

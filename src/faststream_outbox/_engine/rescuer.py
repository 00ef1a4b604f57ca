"""Gives back the rows of holders that are gone."""

import asyncio

from faststream_outbox._engine.health import Health
from faststream_outbox._engine.service import Service
from faststream_outbox._engine.wakeups import Wakeups
from faststream_outbox._store.protocol import Store

INTERVAL_SECONDS = 0.7
"""A dead process is seen once, seen again, and then its rows are free: within 2 s together with the claim."""


class Rescuer(Service):
    """Frees leases that ran out, and leases whose holder has been absent on two passes in a row.

    Two passes, because a living process may lose its connection for a moment and come back.

    Args:
        store: Where leases are.
        wakeups: Rung for the queues of freed rows.
        writes: Held during a write, so that all upkeep of a process shares one connection.
        health: The database's.
    """

    def __init__(self, store: Store, wakeups: Wakeups, writes: asyncio.Lock, health: Health) -> None:
        super().__init__("outbox-rescuer", health)
        self.token = ""
        self._store = store
        self._wakeups = wakeups
        self._writes = writes
        self._suspects: frozenset[str] = frozenset()

    async def run_once(self) -> None:
        await self.sleep(INTERVAL_SECONDS)
        if self.is_stopping:
            return
        async with self._writes:
            found = await self._store.rescue(token=self.token, suspects=self._suspects)
        self._suspects = found.absent
        for queue in found.freed_queues:
            self._wakeups.wake(queue)
        self.health.recovered()

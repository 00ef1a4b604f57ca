"""Keeps leases alive while handlers run."""

import asyncio
import logging

from faststream_outbox._engine.health import Health, Log
from faststream_outbox._engine.leases import Leases
from faststream_outbox._engine.service import Service
from faststream_outbox._store.protocol import Store


class Renewer(Service):
    """Renews each lease after a third of its time.

    Args:
        store: Where leases are.
        leases: Those of this process.
        writes: Held during a write, so that all upkeep of a process shares one connection.
        health: The database's.
        log: Told of leases that were lost.
    """

    def __init__(self, store: Store, leases: Leases, writes: asyncio.Lock, health: Health, log: Log) -> None:
        super().__init__("outbox-renewer", health)
        self.token = ""
        self.interval = 5.0
        """Seconds between two looks; lowered by consumers with short leases."""
        self._store = store
        self._leases = leases
        self._writes = writes
        self._log = log

    async def run_once(self) -> None:
        await self.sleep(self.interval)
        for seconds, due in self._leases.to_renew().items():
            async with self._writes:
                # Those settled while we waited for the connection are nobody's business any more.
                rows = [row for row in due if row in self._leases]
                renewed = await self._store.renew(rows, lease_seconds=seconds, token=self.token)
            self._leases.hold((row for row in rows if row.id in renewed), seconds)
            for row in rows:
                if row.id not in renewed:
                    self._leases.let_go(row)
                    self._log(logging.WARNING, f"lease of row {row.id} in {row.queue!r} was lost", None)
            self.health.recovered()

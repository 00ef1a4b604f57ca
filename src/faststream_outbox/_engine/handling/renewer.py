"""Keeps leases alive while handlers run."""

import asyncio
import logging
from collections.abc import Sequence

from faststream_outbox._engine.handling.leases import Leases
from faststream_outbox._engine.health import Health, Log
from faststream_outbox._engine.meter import NO_METER, Meter
from faststream_outbox._engine.service import DATABASE_SECONDS, Service
from faststream_outbox._store.protocol import Store
from faststream_outbox._values.row import OutboxRow

LINGER_SECONDS = 30.0
"""How long the store keeps the connection for leases when there are none: the next message may come soon."""

_SHOWN = 10
"""Rows that one line of the log names."""


class Renewer(Service):
    """Renews each lease after a third of its time, and lets go of the connection for leases when there are none.

    Args:
        store: Where leases are.
        leases: The leases of this process.
        writes: Held during a write, so that all upkeep of a process shares one connection.
        health: The database's.
        log: Gets a line for lost leases.
        meter: Told of lost leases.
    """

    def __init__(
        self,
        store: Store,
        leases: Leases,
        writes: asyncio.Lock,
        health: Health,
        log: Log,
        *,
        meter: Meter = NO_METER,
    ) -> None:
        super().__init__("outbox-renewer", health)
        self.interval = 5.0
        """Seconds between two looks; lowered by consumers with short leases."""
        self._store = store
        self._leases = leases
        self._writes = writes
        self._log = log
        self._meter = meter

    async def run_once(self) -> None:
        await self.sleep(self.interval)
        if self._leases.are_over(LINGER_SECONDS):
            await self._store.let_go()
        for seconds, rows in self._leases.to_renew().items():
            async with self._writes:
                # Those settled while we waited for the connection are nobody's business any more.
                held = [row for row in rows if row in self._leases]
                if held:
                    await self._renew(held, seconds)

    async def _renew(self, rows: Sequence[OutboxRow], seconds: float) -> None:
        async with asyncio.timeout(DATABASE_SECONDS):
            renewed = await self._store.renew(rows, lease_seconds=seconds, token=self._leases.token.value)
        self.health.recovered(self.name)
        self._leases.hold((row for row in rows if row.id in renewed), seconds)
        lost = [row for row in rows if row.id not in renewed]
        for row in lost:
            self._leases.let_go(row)
        if lost:
            self._meter.leases_lost(lost)
            names = ", ".join(f"{row.id} in {row.queue!r}" for row in lost[:_SHOWN])
            more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
            self._log(logging.WARNING, f"leases were lost, others may work on these rows: {names}{more}", None)

"""Gives back the rows of holders that are gone."""

import asyncio
import time
from collections.abc import Callable

from faststream_outbox._engine.handling.leases import Leases
from faststream_outbox._engine.health import Health
from faststream_outbox._engine.service import DATABASE_SECONDS, Service
from faststream_outbox._engine.wakeups import Wakeups
from faststream_outbox._store.protocol import Store

INTERVAL_SECONDS = 0.7
"""A dead process is seen once, seen again, and then its rows are free: within 2 s together with the claim."""

PASSES_APART = 10
"""A pass takes milliseconds, and seconds after hours of an open snapshot: the next waits this many times as long."""

LONGEST_APART = 10.0
"""Seconds that it waits at most: also after a pass in which the process, or its machine, was asleep."""


class Rescuer(Service):
    """Frees leases that ran out, and leases whose holder has been absent on two passes in a row.

    Two passes, because a living process may lose its connection for a moment and come back.

    Args:
        store: Where leases are.
        leases: Tells this process's own token.
        wakeups: Rung for the queues of freed rows.
        health: The database's.
        can_judge: Whether the absence of others means that they are dead. It does not just after the database came
            back: all have lost their presence then, and some are still on their way.
    """

    def __init__(
        self,
        store: Store,
        leases: Leases,
        wakeups: Wakeups,
        health: Health,
        *,
        can_judge: Callable[[], bool],
    ) -> None:
        super().__init__("outbox-rescuer", health)
        self._store = store
        self._leases = leases
        self._wakeups = wakeups
        self._can_judge = can_judge
        self._suspects: frozenset[str] = frozenset()
        self._took = 0.0
        """Seconds of the last pass that came to its end."""

    async def run_once(self) -> None:
        await self.sleep(max(INTERVAL_SECONDS, min(PASSES_APART * self._took, LONGEST_APART)))
        if self.is_stopping or not self._leases.token:
            return
        # Cleared before the pass: if it fails, the next one is not in a row with the last.
        suspects, self._suspects = self._suspects, frozenset()
        if not self._can_judge():
            suspects = frozenset()
        async with asyncio.timeout(DATABASE_SECONDS):
            began = time.monotonic()
            found = await self._store.rescue(token=self._leases.token, suspects=suspects)
            self._took = time.monotonic() - began
        self.health.recovered(self.name)
        self._suspects = found.absent
        for queue in found.freed_queues:
            self._wakeups.wake(queue)

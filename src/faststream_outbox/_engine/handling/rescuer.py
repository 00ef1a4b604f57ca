"""Gives back the rows of holders that are gone."""

import math
import time
from collections.abc import Callable

from faststream_outbox._engine.chore import Chore
from faststream_outbox._engine.handling.leases import Leases
from faststream_outbox._engine.health import Health
from faststream_outbox._engine.meter import NO_METER, Meter
from faststream_outbox._engine.service import DATABASE_SECONDS
from faststream_outbox._engine.wakeups import Wakeups
from faststream_outbox._store.protocol import Store

INTERVAL_SECONDS = 0.7
"""A dead process is seen once, seen again, and then its rows are free: within 2 s together with the claim."""

WITHOUT_HANDLERS_SECONDS = 30.0
"""How often a process looks that has no handlers. It finds rows of a queue that had some before it got a forwarder."""

LONGEST_APART = 10.0
"""Seconds that it waits at most: also after a pass in which the process, or its machine, was asleep."""


class Rescuer(Chore):
    """Frees leases that ran out, and leases whose holder has been absent on two passes in a row.

    Two passes, because a living process may lose its connection for a moment and come back.

    Args:
        store: Where leases are.
        leases: Tells this process's own token.
        wakeups: Rung for the queues of freed rows.
        health: The database's.
        can_judge: Whether the absence of others means that they are dead. It does not just after the database came
            back: all have lost their presence then, and some are still on their way.
        meter: Told which queues had leases to give back.
        has_handlers: Whether this process may have leases itself. A process without handlers looks less often: those
            with handlers look after one another.
    """

    def __init__(
        self,
        store: Store,
        leases: Leases,
        wakeups: Wakeups,
        health: Health,
        *,
        can_judge: Callable[[], bool],
        meter: Meter = NO_METER,
        has_handlers: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(
            "outbox-rescuer",
            health,
            interval=INTERVAL_SECONDS,
            longest=LONGEST_APART,
            limit=DATABASE_SECONDS,
        )
        self._store = store
        self._leases = leases
        self._wakeups = wakeups
        self._can_judge = can_judge
        self._meter = meter
        self._has_handlers = has_handlers
        self._looked_at = -math.inf
        self._suspects: frozenset[str] = frozenset()

    async def work(self) -> None:
        if not self._leases.token.value:
            return
        if not self._has_handlers() and time.monotonic() - self._looked_at < WITHOUT_HANDLERS_SECONDS:
            return
        self._looked_at = time.monotonic()
        # Cleared before the pass: if it fails, the next one is not in a row with the last.
        suspects, self._suspects = self._suspects, frozenset()
        if not self._can_judge():
            suspects = frozenset()
        found = await self._store.rescue(token=self._leases.token.value, suspects=suspects)
        self.health.recovered(self.name)
        self._suspects = found.absent
        if found.freed_queues:
            self._meter.taken_over(found.freed_queues)
        for queue in found.freed_queues:
            self._wakeups.wake(queue)

"""Lets the store learn where ready rows begin."""

import math
import time
from collections.abc import Callable, Sequence

from faststream_outbox._engine.chore import Chore
from faststream_outbox._engine.health import Health, Log, quiet
from faststream_outbox._store.protocol import Store
from faststream_outbox._values.shard import Shard

INTERVAL_SECONDS = 5.0
"""How often floors are raised."""

QUIET_INTERVAL_SECONDS = 60.0
"""How often they are raised where nothing happens. Publishers that do not notify, and others that take all rows, may
move them unheard."""

LONGEST_APART = 300.0
"""Seconds between two surveys at most."""

SURVEY_SECONDS = 120.0
"""When a survey is given up. Nothing waits for it, and after hours of an open snapshot it may take a minute."""


class Surveyor(Chore):
    """Surveys the table beside claims and hand-overs, which look where the last survey says.

    Without it they find the same rows, and may take longer. So a failure here is a line at INFO.

    Args:
        store: Where rows are.
        shards: Returns those from which rows are taken in this process.
        database: The database's health: while it is down, nothing is asked.
        log: Where to say it.
        is_quiet: Whether nothing happens. Surveys are rarer then: a process may have hundreds of idle tables.
    """

    def __init__(
        self,
        store: Store,
        shards: Callable[[], Sequence[Shard]],
        database: Health,
        log: Log,
        *,
        is_quiet: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(
            "outbox-surveyor",
            Health("survey of the outbox table", quiet(log), store.explain),
            interval=INTERVAL_SECONDS,
            longest=LONGEST_APART,
            limit=SURVEY_SECONDS,
        )
        self._store = store
        self._shards = shards
        self._database = database
        self._is_quiet = is_quiet
        self._surveyed_at = -math.inf

    async def work(self) -> None:
        shards = self._shards()
        if self._is_quiet() and time.monotonic() - self._surveyed_at < QUIET_INTERVAL_SECONDS:
            return
        if shards and not self._database.is_down:
            await self._store.survey(shards)
            self._surveyed_at = time.monotonic()
            self.health.recovered(self.name)

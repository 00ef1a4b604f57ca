"""Lets the store learn where ready rows begin."""

from collections.abc import Callable, Sequence

from faststream_outbox._engine.chore import Chore
from faststream_outbox._engine.health import Health, Log, quiet
from faststream_outbox._store.protocol import Store
from faststream_outbox._values.shard import Shard

INTERVAL_SECONDS = 5.0
"""How often floors are raised."""

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
    """

    def __init__(self, store: Store, shards: Callable[[], Sequence[Shard]], database: Health, log: Log) -> None:
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

    async def work(self) -> None:
        shards = self._shards()
        if shards and not self._database.is_down:
            await self._store.survey(shards)
            self.health.recovered(self.name)

"""Looks at the tables now and then, so that a scrape never waits for the database."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from faststream_outbox._engine.chore import Chore
from faststream_outbox._engine.health import Health, Log, quiet
from faststream_outbox._store.protocol import Examiner, Onlooker, Store
from faststream_outbox._values.facts import SnapshotFacts, TableFacts
from faststream_outbox._values.figures import QueueFigures

AT_MOST = 1000
"""Rows of a shard that are counted in each state: a scrape wants to know how much waits, and not to the last row."""

LONGEST_APART = 300.0
"""Seconds between two looks at most, however long one takes."""

LIMIT_SECONDS = 30.0


@dataclass(slots=True)
class Seen:
    """What the last look has found; a part that failed is empty, since old figures mislead."""

    queues: Sequence[QueueFigures] = field(default_factory=list)
    tables: Sequence[TableFacts] = field(default_factory=list)
    snapshots: Sequence[SnapshotFacts] | None = None
    at: float = math.nan
    """When queues were looked at, by the monotonic clock."""


class Looker(Chore):
    """Counts the rows of each queue, and reads what the statistics say of the tables.

    Args:
        store: Puts errors into words.
        onlooker: Counts.
        examiner: Reads statistics; None where there are none to be read.
        log: Where failures are told, at INFO.
        interval: Seconds between two looks; the next one comes later where a look takes long.
        most_queues: The most queues to look at.
    """

    def __init__(
        self,
        store: Store,
        onlooker: Onlooker,
        examiner: Examiner | None,
        log: Log,
        *,
        interval: float,
        most_queues: int,
    ) -> None:
        super().__init__(
            "outbox-looker",
            Health("figures for metrics", quiet(log), store.explain),
            interval=interval,
            longest=LONGEST_APART,
            limit=LIMIT_SECONDS,
        )
        self.seen = Seen()
        self._onlooker = onlooker
        self._examiner = examiner
        self._most_queues = most_queues
        self._first_interval, self.interval = interval, 0.0

    async def work(self) -> None:
        """Look once; what can be seen is kept, also where another look fails."""
        # The first look comes at once.
        self.interval = self._first_interval
        failures: list[Exception] = []
        seen = Seen()
        try:
            seen.queues = await self._onlooker.queues(limit=self._most_queues, at_most=AT_MOST)
            seen.at = time.monotonic()
        except Exception as error:  # noqa: BLE001 - a role may be permitted one look and not another
            failures.append(error)
        if self._examiner is not None:
            try:
                seen.tables = await self._examiner.tables()
                seen.snapshots = await self._examiner.snapshots(seconds=0.0)
            except Exception as error:  # noqa: BLE001 - as above
                failures.append(error)
        self.seen = seen
        if failures:
            raise failures[0]
        self.health.recovered(self.name)

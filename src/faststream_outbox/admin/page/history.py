"""What this process has seen of an outbox in the last hour, for plots."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any, NamedTuple

from faststream_outbox._values.facts import TableFacts
from faststream_outbox._values.figures import QueueFigures
from faststream_outbox._values.overview import Overview, is_standing
from faststream_outbox.admin.admin import OutboxAdmin

SECONDS = 3600.0
"""How far back plots go."""

INTERVAL = 15.0
FRESH_SECONDS = 2.0
"""Several people who look at once share a look at the database."""

SHORTEST_SECONDS = 1.0
"""Between two samples: rates of a shorter time are noise."""

KEEP_SECONDS = 15.0
"""Between two samples that stay. The last one is replaced until then, so that viewers do not shorten the hour."""

MOST_SAMPLES = 250
MOST_QUEUES = 200
"""Queues that are listed at once, and that have plots: of more, the page would be long to make and to read."""

MOST_POINTS = 60
"""Of a queue's plot, which is small."""

LOOK_SECONDS = 30.0


class Point(NamedTuple):
    """A figure at a time."""

    age: float
    """Seconds ago."""
    value: float


class Sample(NamedTuple):
    """One look."""

    at: float
    inserted: int | None
    deleted: int | None
    totals: tuple[int, float, int]
    """Of all queues: their backlog, the age of the oldest takeable row in seconds, and their dead letters."""
    queues: Mapping[str, tuple[int, float, int]]
    """The same of each queue."""
    is_whole: bool
    """False where there were more queues than are kept."""


BACKLOG, OLDEST, DEAD = 0, 1, 2


def first_queues(queues: Sequence[QueueFigures]) -> Sequence[QueueFigures]:
    """Return the queues that are shown first: those that stand, and then the others in the order of their names."""
    return sorted(queues, key=lambda each: (not is_standing(each), each.queue))[:MOST_QUEUES]


class History:
    """Keeps samples, and takes one every 15 seconds while the application runs.

    A look that takes long is followed by a longer rest, so that at most a tenth of the time is spent looking.

    Args:
        admin: Returns the admin API.
        clock: Returns seconds that only grow.
    """

    def __init__(self, admin: Callable[[], OutboxAdmin], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._admin = admin
        self._clock = clock
        self._samples: deque[Sample] = deque(maxlen=MOST_SAMPLES)
        self._last: tuple[float, Overview] | None = None
        self._lock = asyncio.Lock()

    async def overview(self) -> Overview:
        """Return the outbox at a glance, as it was at most two seconds ago."""
        async with self._lock:
            if self._last is None or self._clock() - self._last[0] > FRESH_SECONDS:
                overview = await self._admin().overview()
                self.note(overview.queues, overview.tables)
                self._last = (self._clock(), overview)
            return self._last[1]

    def forget(self) -> None:
        """Have the next look be a fresh one, since somebody has changed something."""
        self._last = None

    def note(self, queues: Sequence[QueueFigures], tables: Sequence[TableFacts]) -> None:
        """Keep what was seen just now."""
        now = self._clock()
        if self._samples and now - self._samples[-1].at < SHORTEST_SECONDS:
            return
        while self._samples and now - self._samples[0].at > SECONDS:
            self._samples.popleft()
        if len(self._samples) > 1 and self._samples[-1].at - self._samples[-2].at < KEEP_SECONDS:
            self._samples.pop()
        self._samples.append(
            Sample(
                now,
                tables[0].rows_inserted if tables else None,
                tables[0].rows_deleted if tables else None,
                (
                    sum(each.backlog.rows for each in queues),
                    max((each.oldest_seconds or 0.0 for each in queues), default=0.0),
                    sum(each.dead.rows for each in queues),
                ),
                {
                    each.queue: (each.backlog.rows, each.oldest_seconds or 0.0, each.dead.rows)
                    for each in first_queues(queues)
                },
                is_whole=len(queues) <= MOST_QUEUES,
            )
        )

    def of_queue(self, queue: str, figure: int) -> Sequence[Point]:
        """Return a figure of a queue (``BACKLOG``, ``OLDEST`` or ``DEAD``) over time.

        It is 0 where the queue had no rows, and a time is left out where the queue was not among those that are kept.
        """
        nothing = (0, 0.0, 0)
        step = -(-len(self._samples) // MOST_POINTS) or 1
        # Counted from the end, so that the present is among them.
        some = [*self._samples][::-1][::step][::-1]
        return [
            Point(self._age(each), float(each.queues.get(queue, nothing)[figure]))
            for each in some
            if each.is_whole or queue in each.queues
        ]

    def of_all(self, figure: int) -> Sequence[Point]:
        """Return a figure of all queues over time: the largest age, the sum of all else."""
        return [Point(self._age(each), float(each.totals[figure])) for each in self._samples]

    def rates(self, name: str) -> Sequence[Point]:
        """Return how many rows a second were ``inserted`` into the table, or ``deleted`` from it."""
        points = []
        samples = [each for each in self._samples if getattr(each, name) is not None]
        for earlier, later in pairwise(samples):
            rows = getattr(later, name) - getattr(earlier, name)
            # Fewer than before: the server's statistics began anew.
            points.append(Point(self._age(later), max(0, rows) / (later.at - earlier.at)))
        return points

    @asynccontextmanager
    async def looking(self, _app: Any = None) -> AsyncIterator[None]:
        """Look again and again until the context ends; it is a lifespan."""
        looks = asyncio.create_task(self._keep_looking(), name="outbox page")
        try:
            yield
        finally:
            looks.cancel()
            with suppress(asyncio.CancelledError):
                await looks

    async def _keep_looking(self) -> None:
        while True:
            began = self._clock()
            # The page itself says what is wrong, to those who look at it.
            with suppress(Exception):
                async with asyncio.timeout(LOOK_SECONDS):
                    admin = self._admin()
                    queues = await admin.queues()
                    self.note(queues, await admin.tables())
            await asyncio.sleep(max(INTERVAL, 10 * (self._clock() - began)))

    def _age(self, sample: Sample) -> float:
        return self._clock() - sample.at

"""Where the ready rows of shards begin, so that nobody walks through what was delivered before them."""

import time
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from faststream_outbox._store.postgres.statements import Statements, quote_table
from faststream_outbox._store.protocol import Shard

SURVEY_SECONDS = 5.0
"""How often floors are raised."""

SURVEYS_APART = 10
"""After hours of an open snapshot a survey may take seconds: the next one waits this many times as long."""

WALKS_APART = 100
"""The same for surveys that walk through shards from their beginning."""

LONGEST_APART = 300.0
"""Seconds after which both are due in any case, also when the process was asleep meanwhile."""


LARGEST_ID = 2**63 - 1


class Run(NamedTuple):
    """For how long a server has been running without losing anything."""

    started: datetime | None
    """Its first process."""
    recovered: datetime | None
    """Its statistics, which it begins anew when it recovers from the crash of one of its processes."""


class Floors:
    """Remembers for each shard an id below which it has no ready row, and gets none.

    As long as anybody keeps a snapshot open, PostgreSQL cannot clean away what was delivered since, and a look for
    ready rows from the beginning of the index passes all of it: 150,000 rows after five minutes of 500 a second.

    A floor is right although there is no lock on it:

    - When the shard was walked through, no ready row was below it, those that stand behind a waiting row included.
    - New rows come above it. Ids are given in order, and all transactions that were writing to the table when an id of
      at least the floor had been seen have ended before the survey.
    - A row that waits is found by its time, whatever its id. So is one that was given back, or whose lease ran out.
    - It counts only for the run of the server that it was learned from, and such a run ends with a crash.
    - An id that the sequence has not given yet, of a row written with an id of its own, counts for nothing.

    What this leaves out is found by the next walk from the beginning: rows whose ids were not given in order
    (``TRUNCATE ... RESTART IDENTITY``, a sequence with CACHE). Everything is learned anew then.

    Args:
        outbox_table: Made by ``make_outbox_table``.
        statements: For this table.
    """

    def __init__(self, outbox_table: Table, statements: Statements) -> None:
        self._table = quote_table(outbox_table)
        self._statements = statements
        self._survey_due: dict[Shard, float] = {}
        self._walk_due: dict[Shard, float] = {}
        """When each shard is to be walked through from its beginning."""
        self._writers_due = 0.0
        self._is_surveying = False
        self._run: Run = Run(None, None)
        """That all this was learned from."""
        self._forget()

    def _forget(self) -> None:
        self._highest = 0
        """Of all ids that were seen."""
        self._mark = 0
        """What ``_highest`` was when the writers were asked for."""
        self._writers: frozenset[str] = frozenset()
        """The transactions of that moment that had not ended at the last look."""
        self._ended = 0
        """All ids up to this one belong to transactions that have ended."""
        self._given = 0
        """The last id that the sequence had given when the writers were asked for; 0 where that is not known."""
        self._floors: dict[Shard, int] = {}

    def columns(self, shards: Sequence[Shard]) -> dict[str, Any]:
        """Return shards and their floors as the parameters of a statement."""
        floors = [self._floors.get(shard, 0) for shard in shards]
        return {**columns_of(shards), "floors": floors, **self._run._asdict()}

    def saw(self, row_id: int) -> None:
        """Note that a row with this id is there."""
        self._highest = max(self._highest, row_id)

    async def survey(self, connection: AsyncConnection, shards: Sequence[Shard]) -> None:
        """Raise the floors of those shards for which it is time."""
        now = time.monotonic()
        due = [shard for shard in shards if now >= self._survey_due.setdefault(shard, now + SURVEY_SECONDS)]
        # One at a time: an answer about writers that is older than another must not come after it.
        if not due or self._is_surveying:
            return
        self._is_surveying = True
        whole = {shard for shard in due if shard in self._floors and now >= self._walk_due.get(shard, 0.0)}
        try:
            await self._look_for_writers(connection)
            can_rise = {shard for shard in due if self._ended > self._floors.get(shard, 0)}
            await self._walk(connection, [shard for shard in due if shard in can_rise | whole], whole)
        finally:
            self._is_surveying = False
            # Also after a survey that failed, or took too long: rows can be had without it.
            ended = time.monotonic()
            took = ended - now
            rest = max(SURVEY_SECONDS, min(SURVEYS_APART * took, LONGEST_APART))
            self._survey_due.update(dict.fromkeys(due, ended + rest))
            self._walk_due.update(dict.fromkeys(whole, ended + min(WALKS_APART * took, LONGEST_APART)))

    async def _look_for_writers(self, connection: AsyncConnection) -> None:
        if time.monotonic() < self._writers_due:
            return
        highest = self._highest
        records = await connection.run_sync(self._statements.writers.execute, {"table": self._table})
        self._writers_due = time.monotonic() + SURVEY_SECONDS
        run, given = Run(*records[0][2:4]), records[0][4] or 0
        if run != self._run or given < self._given:
            self._run = run
            self._forget()
            return
        if 0 < given < highest:
            # Somebody has written a row with an id of his own. What the sequence had given the last time is given.
            highest = self._highest = self._given
        self._given = given
        names = [(writer, is_prepared) for writer, is_prepared, *_ in records if writer is not None]
        writers = frozenset(writer for writer, _ in names)
        # A transaction of that moment may have another name now.
        prepared = frozenset(writer for writer, is_prepared in names if is_prepared)
        self._writers = (self._writers & writers) | prepared
        if not self._writers:
            self._ended = self._mark
            self._mark, self._writers = highest, writers

    async def _walk(self, connection: AsyncConnection, shards: Sequence[Shard], whole: Collection[Shard]) -> None:
        """Find the first ready row of each shard: from its floor on, or of the whole shard."""
        if not shards:
            return
        unborn = min(self._ended + 1, LARGEST_ID)
        floors = [0 if shard in whole else self._floors.get(shard, 0) for shard in shards]
        wanted = {**columns_of(shards), "floors": floors, **self._run._asdict()}
        found = await connection.run_sync(self._statements.survey.execute, wanted)
        for queue, number, first_id, *run in found:
            shard = Shard(queue, number)
            if Run(*run) != self._run or (first_id is not None and first_id < self._floors.get(shard, 0)):
                self._forget()
                return
            self._floors[shard] = unborn if first_id is None else min(first_id, unborn)


def columns_of(shards: Sequence[Shard]) -> dict[str, Any]:
    """Return shards as the parameters of a statement."""
    return {"queues": [shard.queue for shard in shards], "shards": [shard.number for shard in shards]}

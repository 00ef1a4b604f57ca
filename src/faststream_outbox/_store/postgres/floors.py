"""Where the ready rows of shards begin, so that no look walks through what was delivered before them."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from faststream_outbox._store.postgres.horizon import Horizon, Writer
from faststream_outbox._store.postgres.leaps import Leaps
from faststream_outbox._store.postgres.statements import Statements, quote_table
from faststream_outbox._values.run import Run
from faststream_outbox._values.shard import Shard

WALKS_APART = 100
"""A walk through shards from their beginning may take seconds: the next one waits this many times as long."""

LONGEST_APART = 300.0
"""Seconds after which the next walk is due in any case, also when the process was asleep meanwhile."""


class Floors:
    """Remembers for each shard an id below which it has no ready row, and gets none.

    As long as anybody keeps a snapshot open, PostgreSQL cannot clean away what was delivered since, and a look for
    ready rows from the beginning of the index passes all of it: 150,000 rows after five minutes of 500 a second.

    A floor is right although there is no lock on it:

    - When the shard was walked through, no ready row was below it, those that stand behind a waiting row included.
    - New rows come above it: no floor is beyond the horizon.
    - A row that waits is found by its time, whatever its id. So is one that was given back, or whose lease ran out.

    What this leaves out is found by the next walk from the beginning: rows whose ids were not given in order
    (``TRUNCATE ... RESTART IDENTITY``, a sequence with CACHE). Everything is learned anew then.

    Args:
        outbox_table: Made by ``make_outbox_table``.
        statements: For this table.
    """

    def __init__(self, outbox_table: Table, statements: Statements) -> None:
        self._table = quote_table(outbox_table)
        self._statements = statements
        self._horizon = Horizon()
        self._floors: dict[Shard, int] = {}
        self._leaps = Leaps(statements)
        self._walk_due = 0.0
        """When the next survey walks through shards from their beginning."""
        # An answer about writers that is older than another must not come after it.
        self._one_at_a_time = asyncio.Lock()

    def columns(self, shards: Sequence[Shard]) -> dict[str, Any]:
        """Return shards and their floors as the parameters of a statement."""
        floors = [self._floor(shard) for shard in shards]
        return {**columns_of(shards), "floors": floors, **self._horizon.run._asdict()}

    def leaps(self, shards: Sequence[Shard]) -> dict[str, Any] | None:
        """Return the further parameters of a statement that leaps; None where that is not worth while."""
        return self._leaps.columns(shards) if self._leaps.are_worth_while(shards) else None

    def saw(self, row_id: int) -> None:
        """Note that a row with this id is there."""
        self._horizon.saw(row_id)

    async def survey(self, connection: AsyncConnection, shards: Sequence[Shard]) -> None:
        """Raise the floors of these shards, and learn which rows at their heads cannot be taken."""
        async with self._one_at_a_time:
            await self._look_for_writers(connection)
            unborn = self._horizon.unborn
            await self._walk(connection, [shard for shard in shards if unborn > self._floor(shard) + 1])
            await self._learn_leaps(connection, shards)
            # After the others, which are raised also where this takes too long.
            await self._walk_from_the_beginning(connection, [shard for shard in shards if shard in self._floors])

    async def _look_for_writers(self, connection: AsyncConnection) -> None:
        highest = self._horizon.highest
        records = await connection.run_sync(self._statements.writers.execute, {"table": self._table})
        run, given = Run(*records[0][2:4]), records[0][4] or 0
        if self._horizon.is_new(run, given):
            self._forget()
            return
        writers = [Writer(name, is_prepared) for name, is_prepared, *_ in records if name is not None]
        self._horizon.heard(writers, highest=highest, given=given)

    async def _walk_from_the_beginning(self, connection: AsyncConnection, shards: Sequence[Shard]) -> None:
        began = time.monotonic()
        if began < self._walk_due:
            return
        try:
            await self._walk(connection, shards, is_whole=True)
            await self._learn_leaps(connection, shards, is_whole=True)
        finally:
            # Also after one that failed, or took too long.
            ended = time.monotonic()
            self._walk_due = ended + min(WALKS_APART * (ended - began), LONGEST_APART)

    async def _walk(self, connection: AsyncConnection, shards: Sequence[Shard], *, is_whole: bool = False) -> None:
        """Find the first ready row of each shard: from its floor on, or of the whole shard."""
        if not shards:
            return
        wanted = self.columns(shards)
        if is_whole:
            wanted["floors"] = [0] * len(shards)
        unborn = self._horizon.unborn
        found = await connection.run_sync(self._statements.survey.execute, wanted)
        for queue, number, first_id, *run in found:
            shard = Shard(queue, number)
            if Run(*run) != self._horizon.run or (first_id is not None and first_id < self._floor(shard)):
                self._forget()
                return
            self._floors[shard] = unborn if first_id is None else min(first_id, unborn)

    async def _learn_leaps(
        self, connection: AsyncConnection, shards: Sequence[Shard], *, is_whole: bool = False
    ) -> None:
        """Learn what stands behind waiting rows: from the present edges on, or from the floors on."""
        shards = [shard for shard in shards if shard in self._floors]
        if shards and not await self._leaps.learn(
            connection,
            self.columns(shards),
            run=self._horizon.run,
            unborn=self._horizon.unborn,
            is_whole=is_whole,
        ):
            self._forget()

    def _forget(self) -> None:
        self._horizon.forget()
        self._floors.clear()
        self._leaps.forget()

    def _floor(self, shard: Shard) -> int:
        return self._floors.get(shard, 0)


def columns_of(shards: Sequence[Shard]) -> dict[str, Any]:
    """Return shards as the parameters of a statement."""
    return {"queues": [shard.queue for shard in shards], "shards": [shard.number for shard in shards]}

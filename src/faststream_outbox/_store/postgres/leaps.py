"""Up to which id all ready rows of a shard stand behind rows that wait, so that no hand-over walks through them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from faststream_outbox._store.postgres.driver import Record
from faststream_outbox._store.postgres.statements import Statements
from faststream_outbox._values.run import Run
from faststream_outbox._values.shard import Shard

MOST_BARRIERS = 100
"""Of one shard: each hand-over looks whether they still wait. Rows behind further ones are walked through."""

WORTH_ROWS = 1000
"""To walk through so many takes about a millisecond. To look at barriers takes a tenth of that, most of it planning."""


class Barred(NamedTuple):
    """Rows that stand behind one barrier."""

    first: int
    """The lowest id among them."""
    rows: int


@dataclass(frozen=True, slots=True)
class Leap:
    """Where a hand-over begins to look for ready rows, as long as the barriers are there."""

    edge: int
    """Each ready row with a lower id stands behind one of the barriers, and no further row comes below it."""
    barriers: dict[int, Barred]
    """What stands behind each of them, by its id; in the order of the first rows."""

    @property
    def is_worth_while(self) -> bool:
        return sum(barred.rows for barred in self.barriers.values()) >= WORTH_ROWS


class Leaps:
    """Remembers for each shard which of its first ready rows need not be looked at, and why.

    A *barrier* is a row that was tried before and waits, or is held as a dead letter: the later rows of its key cannot
    be taken. A busy key that is held for hours can have 100,000 of them at the head of its shard, and each look would
    pass them all by. So a look begins behind those of which it is known that they are barred.

    This takes no row from any look, and none is taken too early. Whether a row may be taken is decided as without it,
    in the same statement, and the rows that are passed by are just those of which that statement would say no:

    - Each ready row below the edge had its barrier when it was looked for. A row becomes ready only by being written,
      and none comes below the edge, which is not beyond the horizon.
    - The statement that takes rows sees which barriers are there. Where one is not, it begins at the first row that was
      behind it: all before that stand behind others. How it went away makes no difference.
    - A row that is not ready (a timer, a retry, one that was given back) is found by its time, wherever a look begins.

    It counts only for the run of the server that it was learned from, as floors do. What it leaves out is what floors
    leave out, and is found likewise: each walk from the beginning learns it anew from the floor on.

    Args:
        statements: For this table.
    """

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._leaps: dict[Shard, Leap] = {}

    def forget(self) -> None:
        """Learn all anew."""
        self._leaps.clear()

    def are_worth_while(self, shards: Sequence[Shard]) -> bool:
        """Return whether a hand-over of these shards is to leap."""
        return any(shard in self._leaps and self._leaps[shard].is_worth_while for shard in shards)

    def columns(self, shards: Sequence[Shard]) -> dict[str, Any]:
        """Return the leaps of shards as the parameters of a statement."""
        return _columns(self._leaps.get(shard) for shard in shards)

    async def learn(
        self, connection: AsyncConnection, floors: dict[str, Any], *, run: Run, unborn: int, is_whole: bool = False
    ) -> bool:
        """Find out which ready rows of shards are barred, from the present edges on.

        Args:
            connection: To ask on.
            floors: The shards and their floors, as the parameters of a statement.
            run: Of the server that the floors were learned from.
            unborn: The first id that a row may still come with.
            is_whole: Whether to begin at the floors.

        Returns:
            Whether it is the same run of the server; else nothing is learned.
        """
        floor_of = {
            Shard(queue, number): floor
            for queue, number, floor in zip(floors["queues"], floors["shards"], floors["floors"], strict=True)
        }
        known = {} if is_whole else self._leaps
        edges = _columns(known.get(shard) for shard in floor_of)
        wanted = {**floors, **edges, "unborn": unborn, "most": MOST_BARRIERS + 1}
        records = await connection.run_sync(self._statements.leap.execute, wanted)
        if any(Run(*record[7:9]) != run for record in records):
            return False
        # Shards without a barrier are not among them.
        joined = {
            shard: _joined(known.get(shard), found, floor=floor_of[shard])
            for shard, found in groupby(records, lambda record: Shard(*record[:2]))
        }
        self._leaps = {shard: leap for shard, leap in joined.items() if leap.barriers}
        return True


def _columns(leaps: Iterable[Leap | None]) -> dict[str, Any]:
    edges, barriers = [], []
    for number, leap in enumerate(leaps, 1):
        edges.append(0 if leap is None else leap.edge)
        if leap is not None:
            barriers += [(number, barrier, barred.first) for barrier, barred in leap.barriers.items()]
    return {
        "edges": edges,
        "barred_at": [at for at, _, _ in barriers],
        "barriers": [barrier for _, barrier, _ in barriers],
        "barred_from": [first for _, _, first in barriers],
    }


def _joined(before: Leap | None, found: Iterable[Record], *, floor: int) -> Leap:
    """Return the leap of a shard.

    Args:
        before: What was known of it.
        found: For each barrier of rows behind the start of the look: the queue, the number of the shard, this start,
            the edge, the barrier's id, the first row behind it, and how many rows; in the order of the first rows.
        floor: The shard's.
    """
    records = list(found)
    start, edge = records[0][2:4]
    barriers: dict[int, Barred] = {}
    if before is not None and start > floor:
        # The barriers of rows before the start are there: else it would be lower.
        barriers = {barrier: barred for barrier, barred in before.barriers.items() if barred.first < start}
    for barrier, first, rows in (record[4:7] for record in records):
        if barrier is not None:
            known = barriers.get(barrier, Barred(first, 0))
            barriers[barrier] = Barred(known.first, known.rows + rows)
    in_order = sorted(barriers.items(), key=lambda each: each[1].first)
    if len(in_order) > MOST_BARRIERS:
        # All rows before the first one that the next barrier holds back stand behind these.
        edge = in_order[MOST_BARRIERS][1].first
    return Leap(edge, dict(in_order[:MOST_BARRIERS]))

"""Locks shards and takes their rows, in the transaction of a hand-over."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from faststream_outbox._store.halves import halves
from faststream_outbox._store.positions import NO_MOVES
from faststream_outbox._store.postgres.driver import DriverStatement, Record
from faststream_outbox._store.postgres.floors import Floors
from faststream_outbox._store.postgres.positions import PostgresMover
from faststream_outbox._store.postgres.records import all_bytes_of, id_of, shard_of, to_rows
from faststream_outbox._store.postgres.settler import Settler
from faststream_outbox._store.postgres.statement_runner import sqlstate
from faststream_outbox._store.postgres.statements import PositionStatements, Statements, Take, quote_table
from faststream_outbox._store.protocol import Holder, LeftOut
from faststream_outbox._values.control import PausedKey
from faststream_outbox._values.outcome import Settlement, Unwritten
from faststream_outbox._values.position import Move
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.run import NO_RUN, Run
from faststream_outbox._values.shard import Shard
from faststream_outbox._values.wire import rfc3339

LOCK_NOT_AVAILABLE = "55P03"
"""SQLSTATE lock_not_available: ``lock_timeout`` has passed, or a row was not to be waited for."""

PATIENCE_SECONDS = 0.1
"""How long a hand-over of several shards waits for a lock on the table, before it takes one shard alone."""


class RowLockedError(Exception):
    """A stranger has locked a row that others must not pass."""


@dataclass
class PostgresHandOver:
    """Rows that are locked by an open transaction."""

    shards: Sequence[Shard]
    rows: Sequence[OutboxRow]
    vacant: Sequence[Shard]
    has_more: bool
    is_whole: bool
    records: Sequence[Record]
    run: Run
    tokens: Mapping[Shard, int]
    write: Callable[[Sequence[Settlement], Mapping[Shard, Move]], Awaitable[Sequence[Unwritten]]]

    def row_shards(self) -> Sequence[Shard]:
        known = {shard: shard for shard in self.shards}
        return [known[shard_of(record)] for record in self.records]

    async def settle(
        self, settlements: Sequence[Settlement], moves: Mapping[Shard, Move] = NO_MOVES
    ) -> Sequence[Unwritten]:
        return await self.write(settlements, moves)


class HandingOver:
    """Takes rows of one outbox table.

    Args:
        outbox_table: Made by ``make_outbox_table``.
        statements: For this table.
        settling: Writes outcomes to it.
        floors: Where its ready rows begin.
    """

    def __init__(self, outbox_table: Table, statements: Statements, settler: Settler, floors: Floors) -> None:
        self._statements = statements
        self._settler = settler
        self._floors = floors
        self._scope = scope_of(outbox_table)

    async def take(
        self,
        connection: AsyncConnection,
        shards: Sequence[Shard],
        *,
        limit: int,
        breadth: int,
        max_bytes: int,
        idle_seconds: float,
        left_out: Sequence[LeftOut] = (),
        paused: Sequence[PausedKey] = (),
        forwarder: str | None = None,
    ) -> PostgresHandOver | None:
        """Take rows as ``Store.hand_over`` says, in a transaction that the caller ends."""

        async def take(breadth: int, *, waits: bool = False) -> PostgresHandOver | None:
            locked = await self._lock(connection, shards, breadth=breadth, idle_seconds=idle_seconds)
            if not locked.shards:
                return None
            share = limit // len(locked.shards)
            wanted = {
                **self._floors.columns(locked.shards),
                **_columns_of(left_out, locked.shards),
                **paused_columns(paused),
                "share": share,
                **halves(share)._asdict(),
                "max_bytes": max_bytes,
                "lock_timeout": locked.lock_timeout,
            }
            if forwarder is not None:
                wanted["forwarder"] = forwarder
            statement, leaping = self._statements_for(forwarder, beside_pauses=bool(paused))
            if (leaps := self._floors.leaps(locked.shards)) is not None:
                statement, wanted = leaping, wanted | leaps
            if waits:
                # What this one finds may be from before it waited. The next one sees what the rows have become.
                await connection.run_sync(statement.waiting.execute, wanted)
            is_whole = len(locked.shards) < breadth
            return await self._take(connection, locked, statement.at_once, wanted, is_whole=is_whole)

        with suppress(RowLockedError):
            return await take(min(breadth, limit))
        while True:
            await connection.rollback()
            with suppress(RowLockedError):
                hand_over = await take(1, waits=True)
                if hand_over is not None and breadth > 1:
                    hand_over.has_more = True
                return hand_over

    async def take_known(
        self,
        connection: AsyncConnection,
        shards: Sequence[Shard],
        only: Sequence[int],
        *,
        limit: int,
        max_bytes: int,
        idle_seconds: float,
    ) -> PostgresHandOver | None:
        """Take rows by their ids, of the first of ``shards`` that has work and no other taker."""
        locked = await self._lock(connection, shards, breadth=1, idle_seconds=idle_seconds)
        if not locked.shards:
            return None
        [shard] = locked.shards
        wanted = {
            "queue": shard.queue,
            "shard": shard.number,
            "only": list(only),
            "limit": limit,
            "share": limit,
            "max_bytes": max_bytes,
        }
        return await self._take(connection, locked, self._statements.take_known, wanted, is_whole=False)

    def _statements_for(self, forwarder: str | None, *, beside_pauses: bool) -> tuple[Take, Take]:
        """Return the statement that takes rows, and the one that leaps."""
        if forwarder is not None:
            held = self._position_statements
            if beside_pauses:
                return held.take_beside_pauses, held.take_leaping_beside_pauses
            return held.take, held.take_leaping
        if beside_pauses:
            return self._statements.beside_pauses.take, self._statements.beside_pauses.take_leaping
        return self._statements.take, self._statements.take_leaping

    @property
    def _position_statements(self) -> PositionStatements:
        assert self._statements.positions is not None  # noqa: S101 - such a forwarder does not start without the table
        return self._statements.positions

    async def _lock(
        self, connection: AsyncConnection, shards: Sequence[Shard], *, breadth: int, idle_seconds: float
    ) -> "_Locked":
        wanted = {
            **self._floors.columns(shards),
            **self._scope,
            "breadth": breadth,
            "idle": _milliseconds(idle_seconds),
            "patience": _milliseconds(PATIENCE_SECONDS) if breadth > 1 else None,
        }
        records = await connection.run_sync(self._statements.lock_shards.execute, wanted)
        if not records:
            return _Locked([], "", NO_RUN)
        # Only the first one has what was set before.
        return _Locked([Shard(*record[:2]) for record in records], records[0][2], Run(*records[0][3:5]))

    async def _take(
        self,
        connection: AsyncConnection,
        locked: "_Locked",
        statement: DriverStatement,
        wanted: dict[str, Any],
        *,
        is_whole: bool,
    ) -> PostgresHandOver:
        try:
            records = await connection.run_sync(statement.execute, wanted)
        except DBAPIError as error:
            # Rows that are known are not waited for: there, it is a lock on the table.
            if sqlstate(error) == LOCK_NOT_AVAILABLE and statement is not self._statements.take_known:
                raise RowLockedError from error
            raise
        if records:
            self._floors.saw(id_of(records[-1]))

        async def write(settlements: Sequence[Settlement], moves: Mapping[Shard, Move]) -> Sequence[Unwritten]:
            moving = PostgresMover(self._position_statements, wanted["forwarder"], moves) if moves else None
            return await self._settler.write(connection, settlements, token=None, moving=moving)

        share_of = Counter(map(shard_of, records))
        is_cut = any(all_bytes_of(record) > wanted["max_bytes"] for record in records[:1])
        return PostgresHandOver(
            shards=locked.shards,
            rows=to_rows(records),
            # Where bytes were the limit, a shard may have had rows that are not among these.
            vacant=[] if is_cut else [shard for shard in locked.shards if shard not in share_of],
            has_more=is_cut or wanted["share"] in share_of.values(),
            is_whole=is_whole,
            records=records,
            run=locked.run,
            tokens=_tokens_of(records) if "forwarder" in wanted else {},
            write=write,
        )


def _tokens_of(records: Sequence[Record]) -> Mapping[Shard, int]:
    tokens = {shard_of(record): record[-1] for record in records}
    return {Shard(*shard): token for shard, token in tokens.items() if token is not None}


def scope_of(outbox_table: Table) -> dict[str, Any]:
    """Return the parameters by which a statement names the locks of shards."""
    name = quote_table(outbox_table)
    return {"table": name, "name_scope": f"{name}/"}


def to_holder(record: Record) -> Holder:
    """Read what ``holders.sql`` says of a session."""
    queue, number, pid, hold, user, since = record
    # A transaction that is prepared for a two-phase commit has no process.
    who = "a prepared transaction" if pid is None else f"pid {pid} of user {user!r}"
    if since is not None:
        who += f", in a transaction since {rfc3339(since)}"
    return Holder(Shard(queue, number), who, f"{pid} {hold}")


class _Locked(NamedTuple):
    """What the look for shards has found."""

    shards: Sequence[Shard]
    """Those that this transaction has locked."""
    lock_timeout: str
    """The role's own one."""
    run: Run
    """Of the server."""


def _columns_of(left_out: Sequence[LeftOut], shards: Sequence[Shard]) -> dict[str, Any]:
    """Return what is left out of some shards as the parameters of a statement."""
    here = [each for each in left_out if each.shard in shards]
    return {
        "left_out": [each.id for each in here],
        "held_keys": [each.held_key for each in here if each.held_key is not None],
    }


def paused_columns(paused: Sequence[PausedKey]) -> dict[str, Any]:
    """Return paused keys as the parameters of a statement; none where there are none."""
    if not paused:
        return {}
    return {"paused_keys": [each.key for each in paused], "paused_queues": [each.queue for each in paused]}


def _milliseconds(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"

"""What the loops do with rows, in transactions of their own."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Row, Table, TextClause
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from faststream_outbox._store.postgres.inspection import differences
from faststream_outbox._store.postgres.listener import channel_of, listen
from faststream_outbox._store.postgres.records import place_of, to_rows
from faststream_outbox._store.postgres.statements import Statements, quote_table
from faststream_outbox._store.protocol import (
    DEFAULT_BATCH_BYTES,
    DEFAULT_IDLE_SECONDS,
    PRESENCE_PREFIX,
    Lag,
    Listener,
    Place,
    Rescue,
)
from faststream_outbox._values.outcome import Dead, Delivered, Outcome, Released, Retry, Settlement
from faststream_outbox._values.row import OutboxRow

T = TypeVar("T")

UNKNOWN_PREPARED_STATEMENT = "26000"
"""SQLSTATE invalid_sql_statement_name; see "PostgreSQL Error Codes" in its manual."""

LOCK_NOT_AVAILABLE = "55P03"
"""SQLSTATE lock_not_available: ``lock_timeout`` has passed."""

MOST_STATEMENTS = 4
"""How many single statements (claims, outcomes, looks at what is due) run at once; each takes a few milliseconds."""

PATIENCE_SECONDS = 0.1
"""How long a hand-over of several places waits for a row that a stranger has locked, before it takes one alone."""


class PostgresStore:
    """Rows in the outbox table.

    Connections are taken from the engine's pool for one statement (or one hand-over) and given back; the engine is
    never disposed. Beside hand-overs there are never more than ``MOST_STATEMENTS``: the pool is the application's, too.

    Args:
        engine: The caller's engine, on asyncpg.
        outbox_table: Made by ``make_outbox_table``.
        dlq_table: Made by ``make_dlq_table``, or None: rows that failed for good are parked in the outbox table.
            Those that hold their key are parked in any case.
        listen_engine: Where to listen, if not on ``engine``.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        outbox_table: Table,
        dlq_table: Table | None = None,
        *,
        listen_engine: AsyncEngine | None = None,
    ) -> None:
        self._tables = [outbox_table] if dlq_table is None else [outbox_table, dlq_table]
        self._statements = Statements(outbox_table, dlq_table)
        self._ways_to_settle = _ways_to_settle(self._statements)
        self._channel = channel_of(outbox_table)
        self._lock_scope = f"{quote_table(outbox_table)}/"
        # AUTOCOMMIT spares a single statement the round trips of BEGIN and COMMIT.
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        # The engine's own level may be higher, under which a lane would not see what the lane before it wrote.
        self._transactional = engine.execution_options(isolation_level="READ COMMITTED")
        self._single: AsyncEngine | None = None
        self._statements_at_once = asyncio.Semaphore(MOST_STATEMENTS)
        self._listen_engine = listen_engine or engine

    async def claim(self, places: Sequence[Place], *, limit: int, lease_seconds: float, token: str) -> list[OutboxRow]:
        parameters = {
            **_places(places),
            "limit": limit,
            "lease_seconds": lease_seconds,
            "token": token,
        }
        records = await self._fetch(self._statements.claim, parameters)
        return sorted(to_rows(records), key=lambda row: row.id)

    async def settle(self, settlements: Sequence[Settlement], *, token: str) -> None:
        await self._run(lambda connection: self._settle(connection, settlements, token=token))

    async def renew(self, rows: Sequence[OutboxRow], *, lease_seconds: float, token: str) -> set[int]:
        parameters = {**_fence(rows), "lease_seconds": lease_seconds, "token": token}
        return {record[0] for record in await self._fetch(self._statements.renew, parameters)}

    async def give_back(self, queues: Sequence[str], *, known: Sequence[int], token: str) -> None:
        parameters = {"queues": list(queues), "known": list(known), "token": token}
        await self._run(lambda connection: connection.execute(self._statements.give_back, parameters))

    async def rescue(self, *, token: str, suspects: frozenset[str]) -> Rescue:
        parameters = {"token": token, "suspects": list(suspects), "presence_prefix": PRESENCE_PREFIX}
        found = [tuple(record) for record in await self._fetch(self._statements.rescue, parameters)]
        return Rescue(
            freed_queues=frozenset(name for kind, name in found if kind == "freed"),
            absent=frozenset(name for kind, name in found if kind == "absent"),
        )

    async def seconds_to_next_due(self, places: Sequence[Place]) -> float | None:
        records = await self._fetch(self._statements.seconds_to_next_due, _places(places))
        seconds: float | None = records[0][0]
        return seconds

    async def lag(self, places: Sequence[Place]) -> Lag:
        [(rows, seconds)] = [tuple(record) for record in await self._fetch(self._statements.lag, _places(places))]
        # A row that is published while this statement runs is younger than the statement.
        return Lag(rows, max(0.0, seconds or 0.0))

    @asynccontextmanager
    async def hand_over(
        self,
        places: Sequence[Place],
        *,
        limit: int,
        breadth: int = 1,
        max_bytes: int = DEFAULT_BATCH_BYTES,
        idle_seconds: float = DEFAULT_IDLE_SECONDS,
    ) -> AsyncIterator["PostgresHandOver | None"]:
        async with self._transactional.connect() as connection:

            async def take(breadth: int) -> PostgresHandOver | None:
                locked = await self._lock(connection, places, breadth=breadth, idle_seconds=idle_seconds)
                return await self._take(connection, locked, limit=limit, max_bytes=max_bytes) if locked else None

            try:
                hand_over = await take(min(breadth, limit))
            except DBAPIError as error:
                if breadth == 1 or _sqlstate(error) != LOCK_NOT_AVAILABLE:
                    raise
                await connection.rollback()
                hand_over = await take(1)
                if hand_over is not None:
                    hand_over.has_more = True
            yield hand_over
            await connection.commit()

    def listen(self, token: str) -> AbstractAsyncContextManager[Listener | None]:
        return listen(self._listen_engine, self._statements, self._channel, token)

    async def ping(self) -> None:
        await self._run(lambda connection: connection.exec_driver_sql("SELECT 1"))

    async def differences(self) -> dict[str, list[str]]:
        async with self._transactional.begin() as connection:
            found = {quote_table(table): await connection.run_sync(differences, table) for table in self._tables}
        return {table: problems for table, problems in found.items() if problems}

    async def _lock(
        self, connection: AsyncConnection, places: Sequence[Place], *, breadth: int, idle_seconds: float
    ) -> list[Place]:
        wanted = {
            **_places(places),
            "scope": self._lock_scope,
            "breadth": breadth,
            "idle": _milliseconds(idle_seconds),
            "patience": _milliseconds(PATIENCE_SECONDS) if breadth > 1 else None,
        }
        return [Place(*record[:2]) for record in await connection.execute(self._statements.lock_places, wanted)]

    async def _take(
        self, connection: AsyncConnection, places: list[Place], *, limit: int, max_bytes: int
    ) -> "PostgresHandOver":
        wanted = {**_places(places), "share": limit // len(places), "max_bytes": max_bytes}
        records = (await connection.execute(self._statements.take, wanted)).all()

        async def settle(settlements: Sequence[Settlement]) -> None:
            await self._settle(connection, settlements, token=None)

        share_of = Counter(map(place_of, records))
        is_cut = any(record.all_bytes > max_bytes for record in records[:1])
        return PostgresHandOver(
            places=places,
            rows=to_rows(records),
            # Where bytes were the limit, a place may have had rows that are not among these.
            vacant=[] if is_cut else [place for place in places if place not in share_of],
            has_more=is_cut or wanted["share"] in share_of.values(),
            write=settle,
        )

    async def _run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run a statement on a connection of its own, in a transaction where it needs one."""
        async with self._statements_at_once:
            return await self._run_now(work)

    async def _run_now(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        engine = await self._single_engine()
        try:
            async with self._connection(engine) as connection:
                return await work(connection)
        except DBAPIError as error:
            # Asked of this call's engine: another call may have changed over meanwhile.
            if engine is self._transactional or _sqlstate(error) != UNKNOWN_PREPARED_STATEMENT:
                raise
        # A pooler in transaction mode gave what was prepared to one connection of the server, and its execution to
        # another, where it did not happen. Within a transaction the connection stays the same.
        self._single = self._transactional
        async with self._single.begin() as connection:
            return await work(connection)

    def _connection(self, engine: AsyncEngine) -> AbstractAsyncContextManager[AsyncConnection]:
        # To begin and to commit costs a fifth of a statement's processor time, even if the server hears nothing of it.
        return engine.connect() if engine is self._autocommit else engine.begin()

    async def _single_engine(self) -> AsyncEngine:
        if self._single is None:
            # A default of the role or the database counts under AUTOCOMMIT too, and one above READ COMMITTED lets
            # claims that meet fail.
            async with self._transactional.connect() as connection:
                default = (await connection.exec_driver_sql("SHOW default_transaction_isolation")).scalar_one()
            self._single = self._autocommit if default == "read committed" else self._transactional
        return self._single

    async def _fetch(self, statement: TextClause, parameters: dict[str, Any]) -> Sequence[Row[Any]]:
        return (await self._run(lambda connection: connection.execute(statement, parameters))).all()

    async def _settle(
        self,
        connection: AsyncConnection,
        settlements: Sequence[Settlement],
        *,
        token: str | None,
    ) -> None:
        by_kind: defaultdict[type[Outcome], list[Settlement]] = defaultdict(list)
        for settlement in settlements:
            by_kind[type(settlement.outcome)].append(settlement)
        for kind, is_meant, statement, columns in self._ways_to_settle:
            chosen = [each for each in by_kind[kind] if is_meant is None or is_meant(each.outcome)]
            if chosen:
                parameters: dict[str, Any] = {**_fence([row for row, _ in chosen]), "token": token}
                for name, attribute in columns.items():
                    parameters[name] = [getattr(outcome, attribute) for _, outcome in chosen]
                await connection.execute(statement, parameters)


@dataclass
class PostgresHandOver:
    """Rows that are locked by an open transaction."""

    places: Sequence[Place]
    rows: Sequence[OutboxRow]
    vacant: Sequence[Place]
    has_more: bool
    write: Callable[[Sequence[Settlement]], Awaitable[None]]

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        await self.write(settlements)


def _ways_to_settle(
    statements: Statements,
) -> Sequence[tuple[type[Outcome], Callable[[Any], bool] | None, TextClause, Mapping[str, str]]]:
    """Say which outcomes each statement writes, and which of their parts it takes under which name.

    The outcomes are those of a kind, and of these the ones that a condition holds for, where there is one.
    """
    reason = {"reasons": "reason", "exceptions": "exception"}
    moved = statements.settle_dead_moved

    def is_parked(outcome: Dead) -> bool:
        return moved is None or outcome.holds_key

    def is_moved(outcome: Dead) -> bool:
        return not is_parked(outcome)

    return [
        (Delivered, None, statements.settle_delivered, {}),
        (Retry, None, statements.settle_retry, {"delays": "delay", "exceptions": "exception"}),
        (Dead, is_parked, statements.settle_dead_parked, {**reason, "holds": "holds_key"}),
        *([] if moved is None else [(Dead, is_moved, moved, reason)]),
        (Released, None, statements.settle_released, {"started": "started"}),
    ]


def _sqlstate(error: DBAPIError) -> str | None:
    sqlstate: str | None = getattr(error.orig, "sqlstate", None)
    return sqlstate


def _milliseconds(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def _places(places: Sequence[Place]) -> dict[str, Any]:
    return {"queues": [place.queue for place in places], "shards": [place.shard for place in places]}


def _fence(rows: Sequence[OutboxRow]) -> dict[str, Any]:
    return {"ids": [row.id for row in rows], "deliveries": [row.deliveries_count for row in rows]}

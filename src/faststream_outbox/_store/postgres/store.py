"""What the loops do with rows, in transactions of their own."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from sqlalchemy import Table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from faststream_outbox._store.halves import halves
from faststream_outbox._store.postgres.advice import explain
from faststream_outbox._store.postgres.announcing import payloads_of
from faststream_outbox._store.postgres.apart import most_connections
from faststream_outbox._store.postgres.controls import PostgresControls
from faststream_outbox._store.postgres.driver import Record
from faststream_outbox._store.postgres.floors import Floors, columns_of
from faststream_outbox._store.postgres.handing_over import (
    HandingOver,
    PostgresHandOver,
    paused_columns,
    scope_of,
    to_holder,
)
from faststream_outbox._store.postgres.inspection import differences
from faststream_outbox._store.postgres.listener import listen
from faststream_outbox._store.postgres.positions import PostgresPositions
from faststream_outbox._store.postgres.records import is_cut_of, to_rows
from faststream_outbox._store.postgres.refusals import refusal_in
from faststream_outbox._store.postgres.settler import Settler, fence
from faststream_outbox._store.postgres.statement_runner import StatementRunner
from faststream_outbox._store.postgres.statements import Statements, quote_table
from faststream_outbox._store.postgres.tenants import translated
from faststream_outbox._store.postgres.upkeep import Upkeep
from faststream_outbox._store.protocol import (
    DEFAULT_BATCH_BYTES,
    DEFAULT_IDLE_SECONDS,
    LONGEST_REST_SECONDS,
    PRESENCE_PREFIX,
    RESCUED_AT_ONCE,
    Claim,
    Holder,
    Lag,
    LeftOut,
    Listener,
    Outlook,
    Rescue,
)
from faststream_outbox._values.control import PausedKey
from faststream_outbox._values.copies import copy_queue
from faststream_outbox._values.explanation import Explanation
from faststream_outbox._values.outcome import Settlement, TextOf, Unwritten, describe
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard
from faststream_outbox.schema import SHARDS

MOST_AT_ONCE = 10_000
"""Rows whose waiting one statement ends."""


class PostgresStore:
    """Rows in the outbox table.

    Connections are taken from the engine's pool for one statement (or one hand-over) and given back; those that listen
    and look after leases are opened beside it. The engine is never disposed.

    Args:
        engine: The caller's engine, on asyncpg.
        outbox_table: Made by ``make_outbox_table``.
        dlq_table: Made by ``make_dlq_table``, or None: rows that failed for good are parked in the outbox table.
            Dead letters that hold their key are parked in any case.
        position_table: Made by ``make_position_table``, or None: no forwarder sends exactly once.
        control_table: Made by ``make_outbox_control_table``, or None: nothing is paused for all processes.
        listen_engine: Where to listen, if not on ``engine``.
        text_of: Returns what is kept of exceptions.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        outbox_table: Table,
        dlq_table: Table | None = None,
        position_table: Table | None = None,
        *,
        control_table: Table | None = None,
        listen_engine: AsyncEngine | None = None,
        text_of: TextOf = describe,
    ) -> None:
        outbox_table = translated(outbox_table, engine)
        dlq_table = None if dlq_table is None else translated(dlq_table, engine)
        position_table = None if position_table is None else translated(position_table, engine)
        control_table = None if control_table is None else translated(control_table, engine)
        tables = (outbox_table, dlq_table, position_table, control_table)
        self._tables = [table for table in tables if table is not None]
        self._statements = Statements(outbox_table, dlq_table, position_table)
        self._outbox_table = outbox_table
        self._engine = engine
        # The engine's own level may be higher, under which a lane would not see what the lane before it wrote.
        self._transactional = engine.execution_options(isolation_level="READ COMMITTED")
        self._positions = None
        if self._statements.positions is not None:
            self._positions = PostgresPositions(self._transactional, self._statements.positions)
        self._runner = StatementRunner(engine, self._transactional)
        self._controls = None
        if control_table is not None:
            self._controls = PostgresControls(engine, outbox_table, control_table, runner=self._runner)
        self._upkeep = Upkeep(self._runner)
        self._settler = Settler(self._statements, text_of=text_of)
        self._floors = Floors(outbox_table, self._statements)
        self._handing_over = HandingOver(outbox_table, self._statements, self._settler, self._floors)
        self._listen_engine = listen_engine or engine

    @property
    def positions(self) -> PostgresPositions | None:
        return self._positions

    @property
    def controls(self) -> PostgresControls | None:
        return self._controls

    @property
    def most_connections(self) -> int | None:
        return most_connections(self._engine)

    async def claim(
        self,
        shards: Sequence[Shard],
        *,
        limit: int,
        lease_seconds: float,
        token: str,
        max_bytes: int = DEFAULT_BATCH_BYTES,
        paused: Sequence[PausedKey] = (),
    ) -> Claim:
        statement = self._statements.beside_pauses.claim if paused else self._statements.claim

        async def claim(connection: AsyncConnection) -> Sequence[Record]:
            wanted = {
                **self._floors.columns(shards),
                "limit": limit,
                **halves(limit)._asdict(),
                "max_bytes": max_bytes,
                "lease_seconds": lease_seconds,
                "token": token,
                **paused_columns(paused),
            }
            return await connection.run_sync(statement.execute, wanted)

        records = await self._runner.run(claim)
        rows = sorted(to_rows(records), key=lambda row: row.id)
        if rows:
            self._floors.saw(rows[-1].id)
        is_cut = any(map(is_cut_of, records[:1]))
        return Claim(rows, has_more=is_cut or len(rows) == limit)

    async def settle(self, settlements: Sequence[Settlement], *, token: str) -> Sequence[Unwritten]:
        async def write(connection: AsyncConnection) -> Sequence[Unwritten]:
            return await self._settler.write(connection, settlements, token=token)

        try:
            return await self._upkeep.run(write)
        except DBAPIError as error:
            # Where each statement stands alone, this does not happen.
            if not self._settler.is_careful_after(error):
                raise
        return await self._upkeep.run(write)

    async def unsettled(self, rows: Sequence[OutboxRow]) -> set[int]:
        parameters = {**fence(rows), "attempts": [row.attempts_count for row in rows]}
        return {record[0] for record in await self._runner.fetch(self._statements.unsettled, parameters)}

    async def renew(self, rows: Sequence[OutboxRow], *, lease_seconds: float, token: str) -> set[int]:
        parameters = {**fence(rows), "lease_seconds": lease_seconds, "token": token}
        return {record[0] for record in await self._upkeep.fetch(self._statements.renew, parameters)}

    async def give_back(self, queues: Sequence[str], *, known: Sequence[int], token: str) -> None:
        parameters = {"queues": list(queues), "known": list(known), "token": token}
        await self._runner.fetch(self._statements.give_back, parameters)

    async def rescue(self, *, token: str, suspects: frozenset[str]) -> Rescue:
        parameters = {
            "token": token,
            "suspects": list(suspects),
            "presence_prefix": PRESENCE_PREFIX,
            "at_once": RESCUED_AT_ONCE,
            "longest_rest": LONGEST_REST_SECONDS,
        }
        found = [tuple(record) for record in await self._upkeep.fetch_quickly(self._statements.rescue, parameters)]
        return Rescue(
            freed_queues=frozenset(name for kind, name in found if kind == "freed"),
            absent=frozenset(name for kind, name in found if kind == "absent"),
        )

    def reserve(self) -> None:
        self._upkeep.reserve()

    async def let_go(self) -> None:
        await self._upkeep.let_go()

    async def outlook(self, shards: Sequence[Shard]) -> Mapping[str, Outlook]:
        records = await self._runner.fetch(self._statements.outlook, self._floors.columns(shards))
        return {queue: Outlook(is_ready, seconds) for queue, is_ready, seconds in records}

    async def make_due(self, shards: Sequence[Shard], *, slot: int, limit: int) -> int:
        wanted = {**columns_of(shards), "slot": slot, "limit": limit}
        try:
            return len(await self._runner.fetch(self._statements.make_due, wanted))
        except DBAPIError as error:
            if refusal_in(error) is None:
                raise
            # Then they are due at their own time: nothing else should wait for it.
            return 0

    async def retry_now(self, queue: str | None) -> Mapping[str, int]:
        copies = None if queue is None else copy_queue(queue, "")
        wanted = {"queue": queue, "copies": copies, "limit": MOST_AT_ONCE, "table": quote_table(self._outbox_table)}
        woken: Counter[str] = Counter()
        while True:
            found = await self._runner.fetch(self._statements.retry_now, wanted)
            woken.update({name: rows for name, rows, _ in map(tuple, found)})
            if sum(record[1] for record in found) < MOST_AT_ONCE:
                return woken

    async def lag(self, shards: Sequence[Shard], *, at_most: int | None = None) -> Lag:
        wanted = {**columns_of(shards), "at_most": at_most}
        [(rows, seconds)] = map(tuple, await self._runner.fetch(self._statements.lag, wanted))
        # A row that is published while this statement runs is younger than the statement.
        return Lag(rows, max(0.0, seconds or 0.0))

    async def holders(self, shards: Sequence[Shard]) -> list[Holder]:
        parameters = {**self._floors.columns(shards), **scope_of(self._outbox_table)}
        return [to_holder(record) for record in await self._runner.fetch(self._statements.holders, parameters)]

    async def survey(self, shards: Sequence[Shard]) -> None:
        # It counts as a claim in progress, and leaves the others their connections. It is not the upkeep's business:
        # after hours of an open snapshot it takes longer than leases and outcomes can wait.
        await self._runner.run(lambda connection: self._floors.survey(connection, shards))

    async def unconsumed(self, consumed: Sequence[str], *, limit: int) -> list[str]:
        wanted = {"consumed": list(consumed), "shards": SHARDS, "limit": limit}
        return [record[0] for record in await self._runner.fetch(self._statements.unconsumed, wanted)]

    async def announce(self, queues: Sequence[str]) -> None:
        wanted = {"table": quote_table(self._tables[0]), "payloads": list(payloads_of(queues))}
        await self._runner.fetch(self._statements.announce, wanted)

    @asynccontextmanager
    async def hand_over(
        self,
        shards: Sequence[Shard],
        *,
        limit: int,
        breadth: int = 1,
        max_bytes: int = DEFAULT_BATCH_BYTES,
        idle_seconds: float = DEFAULT_IDLE_SECONDS,
        left_out: Sequence[LeftOut] = (),
        paused: Sequence[PausedKey] = (),
        forwarder: str | None = None,
        only: Sequence[int] | None = None,
    ) -> AsyncIterator[PostgresHandOver | None]:
        limits = {"limit": limit, "max_bytes": max_bytes}
        async with self._transactional.connect() as connection:
            if only is not None:
                taking = self._handing_over.take_known(connection, shards, only, idle_seconds=idle_seconds, **limits)
            else:
                taking = self._handing_over.take(
                    connection,
                    shards,
                    breadth=breadth,
                    idle_seconds=idle_seconds,
                    left_out=left_out,
                    paused=paused,
                    forwarder=forwarder,
                    **limits,
                )
            hand_over = await taking
            try:
                yield hand_over
                await connection.commit()
            except DBAPIError as error:
                self._settler.is_careful_after(error)
                raise

    def listen(self, token: str) -> AbstractAsyncContextManager[Listener | None]:
        return listen(self._listen_engine, self._statements, self._outbox_table, token)

    async def ping(self) -> bool:
        [(takes_writes,)] = await self._runner.fetch(self._statements.ping, {})
        return bool(takes_writes)

    def explain(self, error: BaseException) -> Explanation:
        return explain(error)

    async def differences(self) -> dict[str, list[str]]:
        async with self._transactional.begin() as connection:
            found = {quote_table(table): await connection.run_sync(differences, table) for table in self._tables}
        return {table: problems for table, problems in found.items() if problems}

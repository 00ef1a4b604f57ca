"""Asks the database what is known of it, for people who look for what is wrong."""

import asyncio
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Index, Row, Table, TextClause
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox._store.halves import halves
from faststream_outbox._store.postgres.entries import PostgresEntries
from faststream_outbox._store.postgres.inspection import differences
from faststream_outbox._store.postgres.listener import listen
from faststream_outbox._store.postgres.people import PeopleStatements
from faststream_outbox._store.postgres.statements import quote_table
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox._store.postgres.tenants import translated
from faststream_outbox._store.protocol import (
    DEFAULT_BATCH_BYTES,
    LONGEST_REST_SECONDS,
    PRESENCE_PREFIX,
    RESCUED_AT_ONCE,
    Announcement,
)
from faststream_outbox._values.facts import (
    BlockerFacts,
    IndexFacts,
    PlanFacts,
    ServerFacts,
    SnapshotFacts,
    TableFacts,
)
from faststream_outbox._values.shard import Shard
from faststream_outbox.schema import SHARDS

_ROWS = 100
"""How many rows a statement takes or settles, for the planner."""


class PostgresExaminer:
    """Reads the server's catalogs and statistics, explains statements without running them, and listens.

    Args:
        engine: Gives the connections.
        outbox_table: Made by ``make_outbox_table``.
        dlq_table: Made by ``make_dlq_table``, or None.
        others: The position table and the control table, where there are such.
        inbox_table: Made by ``make_inbox_table``, or None.
        listen_engine: Where to listen, if not on ``engine``.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        outbox_table: Table,
        dlq_table: Table | None = None,
        *,
        others: Sequence[Table] = (),
        inbox_table: Table | None = None,
        listen_engine: AsyncEngine | None = None,
    ) -> None:
        self._engine = engine
        self._listen_engine = listen_engine or engine
        self._outbox_table = translated(outbox_table, engine)
        of_rows = [self._outbox_table, *([] if dlq_table is None else [translated(dlq_table, engine)])]
        self._others = [translated(table, engine) for table in others]
        self._inbox_table = None if inbox_table is None else translated(inbox_table, engine)
        self._declared = [*of_rows, *self._others, *([] if self._inbox_table is None else [self._inbox_table])]
        self._tables = {"tables": [quote_table(table) for table in self._declared]}
        self._statements = PeopleStatements(*of_rows)
        self._store = PostgresStore(engine, outbox_table, dlq_table)

    async def server(self) -> ServerFacts:
        async with self._engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            facts = (await connection.execute(self._statements.facts_of_server)).mappings().one()
            # A pooler has told the driver of a process of its own.
            is_pooled = facts["backend"] != driver.get_server_pid()
        return ServerFacts(**{name: value for name, value in facts.items() if name != "backend"}, is_pooled=is_pooled)

    async def tables(self) -> Sequence[TableFacts]:
        records = await self._fetch(self._statements.facts_of_tables, self._tables)
        return [TableFacts(**record._mapping) for record in records]  # noqa: SLF001 - documented by SQLAlchemy

    async def has_table(self, table: Table) -> bool:
        wanted = {"tables": [quote_table(translated(table, self._engine))]}
        return bool(await self._fetch(self._statements.facts_of_tables, wanted))

    def declared_indexes(self) -> Sequence[IndexFacts]:
        return [_declared(table, index) for table in self._declared for index in table.indexes]

    async def indexes(self) -> Sequence[IndexFacts]:
        records = await self._fetch(self._statements.facts_of_indexes, self._tables)
        return [IndexFacts(**record._mapping) for record in records]  # noqa: SLF001 - documented by SQLAlchemy

    async def snapshots(self, *, seconds: float) -> Sequence[SnapshotFacts]:
        records = await self._fetch(self._statements.facts_of_snapshots, {"seconds": seconds})
        return [SnapshotFacts(**record._mapping) for record in records]  # noqa: SLF001 - documented by SQLAlchemy

    async def blockers(self) -> Sequence[BlockerFacts]:
        records = await self._fetch(self._statements.facts_of_blockers, self._tables)
        return [BlockerFacts(**record._mapping) for record in records]  # noqa: SLF001 - documented by SQLAlchemy

    async def plans(self, queue: str) -> Sequence[PlanFacts]:
        wanted = self._parameters(queue)
        found = []
        for name, statement in self._statements.explained.items():
            [(plan,)] = await self._fetch(
                statement, {key: wanted[key] for key in statement.compile().params if key in wanted}
            )
            nodes = list(_nodes(json.loads(plan) if isinstance(plan, str) else plan))
            found.append(
                PlanFacts(
                    statement=name,
                    scans=[_scan(node) for node in nodes],
                    reads_whole_table=any(self._is_whole(node) for node in nodes),
                )
            )
        return found

    async def holders(self, queue: str) -> Sequence[str]:
        held = await self._store.holders([Shard(queue, number) for number in range(SHARDS)])
        return sorted({holder.who for holder in held})

    async def consumed(self, *, seconds: float) -> frozenset[str] | None:
        heard: set[str] = set()
        token = f"examiner:{secrets.token_hex(8)}"
        async with listen(self._listen_engine, self._statements, self._outbox_table, token) as listener:
            if listener is None:
                return None
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    async for signal in listener:
                        if isinstance(signal, Announcement):
                            heard |= signal.queues
        return frozenset(heard)

    async def differences(self) -> Mapping[str, Sequence[str]]:
        found = await self._store.differences()
        async with self._engine.connect() as connection:
            found |= {quote_table(table): await connection.run_sync(differences, table) for table in self._others}
        if self._inbox_table is not None:
            found[quote_table(self._inbox_table)] = await PostgresEntries(self._inbox_table).differences(self._engine)
        return {table: problems for table, problems in found.items() if problems}

    async def _fetch(self, statement: TextClause, wanted: Mapping[str, Any]) -> Sequence[Row[Any]]:
        async with self._engine.connect() as connection:
            return (await connection.execute(statement, wanted)).all()

    def _is_whole(self, node: Mapping[str, Any]) -> bool:
        return bool(node["Node Type"] == "Seq Scan" and node["Relation Name"] == self._outbox_table.name)

    def _parameters(self, queue: str) -> Mapping[str, Any]:
        """Return values like those that consumers give, by the names of parameters."""
        table = quote_table(self._outbox_table)
        return {
            "queues": [queue] * SHARDS,
            "shards": list(range(SHARDS)),
            "floors": [0] * SHARDS,
            "started": datetime(1970, 1, 1, tzinfo=UTC),
            "recovered": None,
            "table": table,
            "name_scope": f"{table}/",
            "breadth": 1,
            "idle": "60s",
            "patience": None,
            "limit": _ROWS,
            "share": _ROWS,
            **halves(_ROWS)._asdict(),
            "left_out": [],
            "held_keys": [],
            "max_bytes": DEFAULT_BATCH_BYTES,
            "lock_timeout": "0",
            "lease_seconds": 60.0,
            "token": "examiner",
            "ids": list(range(_ROWS)),
            "deliveries": [1] * _ROWS,
            "suspects": [],
            "presence_prefix": PRESENCE_PREFIX,
            "at_once": RESCUED_AT_ONCE,
            "longest_rest": LONGEST_REST_SECONDS,
        }


def _declared(table: Table, index: Index) -> IndexFacts:
    where = index.dialect_options["postgresql"]["where"]
    return IndexFacts(
        table=quote_table(table),
        name=str(index.name),
        is_valid=True,
        is_unique=bool(index.unique),
        columns=[column.name for column in index.columns],
        predicate=None if where is None else str(where),
    )


def _nodes(plan: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the parts of a plan that read a table."""
    if isinstance(plan, list):
        for each in plan:
            yield from _nodes(each)
    elif isinstance(plan, dict):
        if "Relation Name" in plan and "Scan" in plan["Node Type"]:
            yield plan
        for each in plan.values():
            yield from _nodes(each)


def _scan(node: Mapping[str, Any]) -> str:
    index = node.get("Index Name")
    return f"{node['Node Type']} {f'using {index}' if index else 'of ' + node['Relation Name']}"

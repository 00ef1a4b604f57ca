"""Rows in, records out, and what must hold between the two."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import psutil
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import OutboxBroker, Outgoing
from integration.servers.topics import Record, read_topic

HAND_OVERS = """
    SELECT DISTINCT pid FROM pg_stat_activity JOIN pg_locks USING (pid)
    WHERE datname = current_database() AND state = 'idle in transaction' AND locktype = 'advisory'
"""
"""A row for each lane that waits for its destination. To ask for free rows by locking them would disturb the lanes."""


class Publishing:
    """Publishes in transactions of its own."""

    def __init__(self, engine: AsyncEngine, outbox_table: SqlTable) -> None:
        self._engine = engine
        self._broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None)

    async def one(self, body: Any, *, queue: str = "orders", **options: Any) -> int | None:
        async with self._engine.begin() as connection:
            return await self._broker.publish(body, queue=queue, session=connection, **options)

    async def many(self, messages: Iterable[Outgoing], *, queue: str = "orders") -> list[int]:
        async with self._engine.begin() as connection:
            return await self._broker.publish_batch(*messages, queue=queue, session=connection)


class Topic:
    """A topic seen by a plain consumer."""

    def __init__(self, bootstrap: str, name: str) -> None:
        self.bootstrap = bootstrap
        self.name = name

    async def records(self, expected: int) -> list[Record]:
        """All records there are, once they are as many as expected."""
        return await read_topic(self.bootstrap, self.name, expected)

    async def count(self) -> int:
        return len(await self.records(0))


def headers_of(record: Record) -> dict[str, str]:
    headers = {name: value.decode() for name, value in record.headers}
    assert len(headers) == len(record.headers), "a header twice"
    return headers


def row_id(record: Record) -> int:
    return int(headers_of(record)["outbox-id"])


def without_repeats(records: Sequence[Record]) -> list[Record]:
    """The first of each idempotency key, as an inbox would let through; repeats must be the same in all but offset."""
    first: dict[str, Record] = {}
    for record in sorted(records, key=lambda record: (record.partition, record.offset)):
        kept = first.setdefault(headers_of(record)["idempotency-key"], record)
        assert (kept.key, kept.value, kept.headers, kept.partition) == (
            record.key,
            record.value,
            record.headers,
            kept.partition if record.key is None else record.partition,
        )
    return list(first.values())


def check_order(records: Sequence[Record]) -> None:
    """Rows of a key are in one partition, in the order of their ids."""
    by_key: defaultdict[bytes | None, list[Record]] = defaultdict(list)
    for record in records:
        by_key[record.key].append(record)
    for key, its_records in by_key.items():
        if key is None:
            continue
        assert len({record.partition for record in its_records}) == 1, key
        ids = [row_id(record) for record in sorted(its_records, key=lambda record: record.offset)]
        assert ids == sorted(ids), f"{key!r} out of order"


def check_complete(records: Sequence[Record], ids: Iterable[int]) -> None:
    """Every row once, in order, after repeats are removed."""
    unique = without_repeats(records)
    assert sorted(row_id(record) for record in unique) == sorted(ids)
    check_order(unique)


def connections_to(port: int) -> set[int]:
    """The local ports of this process's open connections to a server's port."""
    connections = psutil.Process().net_connections("tcp")
    return {
        each.laddr.port
        for each in connections
        if each.raddr and each.raddr.port == port and each.status == psutil.CONN_ESTABLISHED
    }

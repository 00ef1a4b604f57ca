"""Rows in, messages out, and what must hold between the two."""

import asyncio
import itertools
import logging
import random
from collections.abc import Callable, Iterable
from typing import Any

import psutil
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import OutboxBroker, Outgoing
from integration.broker.observing import LogLines, Table, eventually
from integration.destinations.base import Box

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


async def keep_publishing(publishing: Publishing, table: Table, ids: list[int], enough: asyncio.Event) -> None:
    """Publish until it is enough, and keep some hundred rows waiting, however slow the machine is.

    To be ended by the event and not by a cancellation: a transaction may be committed just then, and nobody would know
    its ids.
    """
    for number in itertools.count():
        if enough.is_set():
            return
        if await table.count() < 400:
            ids += await publishing.many(Outgoing(b"", key=f"key-{(number + n) % 23}") for n in range(20))
        await asyncio.sleep(0.02)


async def restart_while_rows_flow(
    server: Any, publishing: Publishing, table: Table, log: LogLines, *, killed: bool, meanwhile: Callable[[], Any]
) -> list[int]:
    """Stop the server of a started forwarder's destination, start it again, and wait until the table is empty.

    Args:
        server: one of ours; it is stopped cleanly unless it is to be killed.
        meanwhile: what must be possible while it is down.

    Returns the ids of all rows. While the server is down, no row's failure is counted, and the log says so.
    """
    ids: list[int] = []
    restarted = asyncio.Event()
    publisher = asyncio.create_task(keep_publishing(publishing, table, ids, restarted))
    try:
        await eventually(lambda: _got_through(table, ids), within=15)
        await asyncio.to_thread(server.process.kill if killed else server.stop)
        await meanwhile()
        await eventually(lambda: log.at_least(logging.WARNING), within=10)
        await nothing_is_counted(table)
        await asyncio.to_thread(server.start)
    finally:
        restarted.set()
        await publisher
    await eventually(table.is_empty, within=20)
    return ids


async def _got_through(table: Table, ids: list[int]) -> bool:
    return len(ids) - await table.count() > 50


def random_message(draw: random.Random, box: Box) -> Outgoing:
    """A message with such headers as the box can carry."""

    def text(longest: int, letters: str) -> str:
        return "".join(draw.choices(letters, k=draw.randint(1, longest)))

    # What publish takes in a name.
    of_keys = "".join(letter for letter in box.header_values if letter == " " or letter.isprintable())
    return Outgoing(
        draw.randbytes(draw.choice((0, 1, 100, 3000, box.longest_body if draw.random() < 0.1 else 5))),
        key=draw.choice((None, text(8, of_keys))),
        headers={
            "x-" + text(10, box.header_names): draw.choice(("", text(40, box.header_values)))
            for _ in range(draw.randint(0, 4))
        },
    )


async def lanes_at_work(table: Table) -> int:
    return len(await table.query(HAND_OVERS))


async def nothing_is_counted(table: Table) -> None:
    assert await table.count("attempts_count > 0 OR failed_at IS NOT NULL") == 0


async def all_failed(table: Table) -> bool:
    return await table.count("failed_at IS NULL") == 0


async def fewer_than(table: Table, before: int) -> bool:
    return await table.count() < before


def connections_to(port: int) -> set[int]:
    """The local ports of this process's open connections to a server's port."""
    connections = psutil.Process().net_connections("tcp")
    return {
        each.laddr.port
        for each in connections
        if each.raddr and each.raddr.port == port and each.status == psutil.CONN_ESTABLISHED
    }

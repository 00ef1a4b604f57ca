"""A broken relay on real servers: the ledger names what each of its faults does, and finds nothing in an honest one."""

import random

import pytest
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import OutboxBroker
from integration.destinations.redis import StreamBox
from integration.servers.redis import RedisServer

from . import broken_relay
from .book import Book, Letter, publish
from .ledger import audit


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (broken_relay.nothing, {}),
        (broken_relay.lose_one, {"lost": 1}),
        (broken_relay.repeat_one, {"repeated": 1}),
        (broken_relay.swap_two_of_a_key, {"out_of_order": 1}),
        (broken_relay.change_a_body, {"changed": 1}),
        (broken_relay.change_a_key, {"changed": 1}),
        (broken_relay.send_before_the_commit, {"unknown": 1}),
    ],
)
async def test_a_broken_relay(
    engine: AsyncEngine,
    outbox_table: Table,
    redis_server: RedisServer,
    redis_key: str,
    fault: broken_relay.Fault,
    seen: dict[str, int],
) -> None:
    draw = random.Random(7)
    book = Book(engine)
    await book.open()
    broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None)
    letters = [Letter(f"m{n}", f"key-{n % 3}", draw.randbytes(50)) for n in range(20)]
    async with engine.begin() as connection:
        await publish(broker, connection, "orders", letters)
    async with engine.connect() as connection:
        await publish(broker, connection, "orders", [Letter("rolled back", None, b"")])
        await connection.rollback()
    await broken_relay.carry(engine, redis_server, redis_key, fault)
    findings = audit(await book.messages(), await StreamBox(redis_server, redis_key).read())
    counts = {name: len(getattr(findings, name)) for name in findings.__slots__ if getattr(findings, name)}
    assert counts == seen

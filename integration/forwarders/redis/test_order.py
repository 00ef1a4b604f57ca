"""G4: the order of each key, and that nothing else has to wait."""

import asyncio
import random

import pytest
from faststream.redis import RedisBroker
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import OutboxBroker, Outgoing
from integration.broker.observing import Table, eventually
from integration.forwarders.carrying import Publishing
from integration.forwarders.conftest import MakeBroker
from integration.servers.redis import EmbeddedRedis, RedisServer

from .carrying import Box, check_complete, check_order


@pytest.mark.parametrize("kind", ["stream", "list"])
async def test_keys_keep_their_order_through_two_brokers_while_rows_are_published(
    kind: str, make_broker: MakeBroker, redis_server: RedisServer, box: Box, publishing: Publishing, table: Table
) -> None:
    draw = random.Random(4)
    ids: list[int] = []
    for _ in range(2):
        broker = make_broker()
        redis = RedisBroker(redis_server.url, logger=None)
        broker.forwarder(["orders", "refunds"], to=redis.publisher(**{kind: box.name}), lanes=2, batch_size=50)
        await broker.start()
    for number in range(40):
        messages = [Outgoing(b"%d" % number, key=f"key-{draw.randrange(40)}") for _ in range(50)]
        # One queue only for each key: between queues there is no order.
        for queue, parity in (("orders", 0), ("refunds", 1)):
            ids += await publishing.many((m for m in messages if int(m.key[4:]) % 2 == parity), queue=queue)
    await eventually(table.is_empty, within=15)
    messages = await box.messages()
    assert len(messages) == len(ids)
    check_complete(messages, ids)


async def test_a_key_with_more_than_one_transaction_keeps_its_order(
    make_broker: MakeBroker, redis: RedisBroker, box: Box, publishing: Publishing, table: Table
) -> None:
    # 3 MiB: several transactions in one hand-over, several hand-overs.
    ids = await publishing.many(Outgoing(b"h" * 5000, key="hot") for _ in range(700))
    ids += await publishing.many(Outgoing(b"c", key=f"cold-{number}") for number in range(50))
    for _ in range(2):
        broker = make_broker()
        broker.forwarder("orders", to=redis.publisher(stream=box.name))
        await broker.start()
    await eventually(table.is_empty, within=15)
    check_complete(await box.messages(), ids)


async def test_no_row_passes_an_earlier_one_of_its_key_while_memory_comes_and_goes(
    make_broker: MakeBroker, own_redis: EmbeddedRedis, own_box: Box, publishing: Publishing, table: Table
) -> None:
    """What a plain pipeline fails at: some of its commands would be taken, and earlier ones not."""
    for _ in range(2):
        broker = make_broker()
        redis = RedisBroker(own_redis.url, logger=None)
        broker.forwarder("orders", to=redis.publisher(stream=own_box.name), batch_size=300)
        await broker.start()
    ids: list[int] = []
    async with own_redis.client() as admin:
        for number in range(30):
            ids += await publishing.many(Outgoing(b"x" * 200, key=f"key-{k % 7}") for k in range(100))
            await admin.config_set("maxmemory", "1" if number % 2 else "0")
            await asyncio.sleep(0.01)
        await admin.config_set("maxmemory", "0")
        await eventually(table.is_empty, within=20)
        stats = await admin.info("errorstats")
    assert stats["errorstat_OOM"]["count"] > 0
    messages = await own_box.messages()
    assert len(messages) == len(ids), "an outage repeats nothing"
    check_complete(messages, ids)
    check_order(messages)


async def test_two_processes_keep_order_while_lanes_are_shared(
    database_url: str,
    outbox_table: SqlTable,
    redis_server: RedisServer,
    box: Box,
    publishing: Publishing,
    table: Table,
) -> None:
    """Brokers that start and stop under load: places and connections change hands all the time."""
    engine = create_async_engine(database_url)
    ids: list[int] = []

    async def publish() -> None:
        for number in range(40):
            ids.extend(await publishing.many(Outgoing(b"", key=f"key-{(number + k) % 11}") for k in range(25)))

    async def come_and_go(times: int = 4) -> None:
        for _ in range(times):
            broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None)
            redis = RedisBroker(redis_server.url, logger=None)
            broker.forwarder("orders", to=redis.publisher(stream=box.name), batch_size=20)
            await broker.start()
            seen = len(ids)
            await eventually(lambda seen=seen: len(ids) >= min(seen + 100, 1000))
            await broker.stop()

    await asyncio.gather(publish(), come_and_go(), come_and_go())
    last = OutboxBroker(engine, outbox_table=outbox_table, logger=None)
    last.forwarder("orders", to=RedisBroker(redis_server.url, logger=None).publisher(stream=box.name))
    await last.start()
    await eventually(table.is_empty, within=15)
    await last.stop()
    await engine.dispose()
    messages = await box.messages()
    assert len(messages) == len(ids), "a clean stop repeats nothing"
    check_complete(messages, ids)

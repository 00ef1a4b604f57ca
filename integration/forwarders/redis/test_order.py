"""G4: a server that refuses some transactions and takes others."""

import asyncio

from faststream.redis import RedisBroker

from faststream_outbox import Outgoing
from integration.broker.observing import Table, eventually
from integration.destinations.received import check_complete, check_order
from integration.destinations.redis import StreamBox
from integration.forwarders.carrying import Publishing
from integration.forwarders.conftest import MakeBroker
from integration.servers.redis import EmbeddedRedis


async def test_no_row_passes_an_earlier_one_of_its_key_while_memory_comes_and_goes(
    make_broker: MakeBroker, own_redis: EmbeddedRedis, own_box: StreamBox, publishing: Publishing, table: Table
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
    messages = await own_box.read()
    assert len(messages) == len(ids), "an outage repeats nothing"
    check_complete(messages, ids)
    check_order(messages)

"""G8: a stop finishes what is in flight, repeats nothing, and does not wait for ever."""

import time
from urllib.parse import urlsplit

import psutil
import pytest
from faststream.redis import RedisBroker

from faststream_outbox import Outgoing
from integration.broker.observing import Table, eventually
from integration.faults.proxy import TcpProxy
from integration.forwarders.carrying import Publishing
from integration.forwarders.conftest import MakeBroker
from integration.servers.redis import RedisServer

from .carrying import Box, check_complete

SMALL = 1.0


async def test_stops_under_load_repeat_and_lose_nothing(
    make_broker: MakeBroker, redis: RedisBroker, box: Box, publishing: Publishing, table: Table
) -> None:
    ids = await publishing.many(Outgoing(b"x" * 300, key=f"key-{n % 50}" if n % 2 else None) for n in range(4000))
    for _ in range(5):
        broker = make_broker()
        broker.forwarder("orders", to=redis.publisher(stream=box.name), batch_size=50)
        before = await table.count()
        await broker.start()
        await eventually(lambda before=before: _fewer(table, before))
        await broker.stop()
    assert not await table.is_empty(), "the stops came under load"
    broker = make_broker()
    broker.forwarder("orders", to=redis.publisher(stream=box.name))
    await broker.start()
    await eventually(table.is_empty, within=15)
    messages = await box.messages()
    assert len(messages) == len(ids)
    check_complete(messages, ids)


async def _fewer(table: Table, before: int) -> bool:
    return await table.count() < before


@pytest.mark.parametrize("grace", [0.0, 0.7])
async def test_a_stop_does_not_wait_longer_than_its_grace_for_a_server_that_hangs(
    grace: float,
    make_broker: MakeBroker,
    proxied_redis: RedisBroker,
    redis_proxy: TcpProxy,
    box: Box,
    publishing: Publishing,
    table: Table,
) -> None:
    broker = make_broker(graceful_timeout=grace)
    broker.forwarder("orders", to=proxied_redis.publisher(stream=box.name))
    await broker.start()
    await publishing.one(b"it works")
    await eventually(table.is_empty, within=10)
    redis_proxy.black_hole()
    await publishing.many([Outgoing(b"x" * 100_000, key="k")] * 40)
    await eventually(lambda: _is_being_sent(table))
    began = time.monotonic()
    await broker.stop()
    assert time.monotonic() - began < grace + SMALL
    free = await table.query("SELECT id, attempts_count FROM outbox FOR UPDATE SKIP LOCKED")
    assert len(free) == 40
    assert {row.attempts_count for row in free} == {0}


async def _is_being_sent(table: Table) -> bool:
    return not await table.query("SELECT id FROM outbox FOR UPDATE SKIP LOCKED")


async def test_a_stop_does_not_wait_for_a_connection(
    make_broker: MakeBroker, proxied_redis: RedisBroker, redis_proxy: TcpProxy, box: Box, publishing: Publishing
) -> None:
    redis_proxy.black_hole()
    broker = make_broker(graceful_timeout=30.0)
    broker.forwarder("orders", to=proxied_redis.publisher(stream=box.name))
    await publishing.one(b"")
    await broker.start()
    await eventually(lambda: _connections_to(redis_proxy.port))
    began = time.monotonic()
    await broker.stop()
    assert time.monotonic() - began < SMALL


def _connections_to(port: int | None) -> list[object]:
    connections = psutil.Process().net_connections("tcp")
    return [c for c in connections if c.raddr and c.raddr.port == port and c.status == psutil.CONN_ESTABLISHED]


async def test_what_the_application_has_opened_stays_open_and_ours_is_closed(
    make_broker: MakeBroker, redis: RedisBroker, redis_server: RedisServer, box: Box, publishing: Publishing
) -> None:
    port = urlsplit(redis_server.url).port
    await redis.start()
    publisher = redis.publisher(stream=box.name)
    await redis.publish(b"the application's", stream=box.name)
    theirs = len(_connections_to(port))
    broker = make_broker()
    broker.forwarder("orders", to=publisher, lanes=3)
    for _ in range(2):  # A broker can be started again.
        await broker.start()
        await eventually(lambda: len(_connections_to(port)) == theirs + 3)
        await broker.stop()
        await eventually(lambda: len(_connections_to(port)) == theirs)
    await redis.publish(b"the application's", stream=box.name)
    await redis.stop()


async def test_a_broker_that_nobody_started_is_not_connected_by_us(
    make_broker: MakeBroker, redis: RedisBroker, box: Box, publishing: Publishing, table: Table
) -> None:
    broker = make_broker()
    broker.forwarder("orders", to=redis.publisher(stream=box.name))
    await publishing.one(b"")
    await broker.start()
    await eventually(table.is_empty)
    assert not redis.running

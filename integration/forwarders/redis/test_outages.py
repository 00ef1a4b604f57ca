"""G5: a destination that is down is no failure of any row."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psutil
import pytest
from faststream.redis import RedisBroker
from redis.asyncio import Redis

from faststream_outbox import Outgoing
from integration.broker.observing import LogLines, Table, eventually
from integration.faults.proxy import TcpProxy
from integration.forwarders.carrying import Publishing
from integration.forwarders.conftest import MakeBroker
from integration.servers.process import LOOPBACK
from integration.servers.redis import EmbeddedRedis

from .carrying import Box, check_complete, check_order, without_repeats


async def _nothing_is_counted(table: Table) -> None:
    assert await table.count("attempts_count > 0 OR failed_at IS NOT NULL") == 0


async def test_redis_down_at_start(
    make_broker: MakeBroker,
    proxied_redis: RedisBroker,
    redis_proxy: TcpProxy,
    box: Box,
    publishing: Publishing,
    table: Table,
    log: LogLines,
) -> None:
    redis_proxy.refuse()
    broker = make_broker(logger=log)
    broker.forwarder("orders", to=proxied_redis.publisher(stream=box.name))
    handled = asyncio.Event()

    @broker.subscriber("local")
    async def handle() -> None:
        handled.set()

    began = time.monotonic()
    await broker.start()
    assert time.monotonic() - began < 1.0
    ids = await publishing.many(Outgoing(b"", key=f"key-{n % 5}") for n in range(100))
    await publishing.one(b"", queue="local")
    await asyncio.wait_for(handled.wait(), 5)
    connections = len(psutil.Process().net_connections("tcp"))
    # Long enough for a handful of attempts.
    await asyncio.sleep(1.5)
    assert len(psutil.Process().net_connections("tcp")) <= connections
    await _nothing_is_counted(table)
    assert await table.count() == 100
    assert len(log.at_least(logging.WARNING)) == 1, log.at_least(logging.WARNING)
    await redis_proxy.restore()
    await eventually(table.is_empty, within=10)
    check_complete(await box.messages(), ids)
    assert len(log.containing("works again")) == 1


@pytest.mark.parametrize("killed", [False, True])
async def test_a_restart_of_the_server_while_rows_flow(
    killed: bool,
    make_broker: MakeBroker,
    own_redis: EmbeddedRedis,
    own_box: Box,
    publishing: Publishing,
    table: Table,
    log: LogLines,
) -> None:
    broker = make_broker(logger=log)
    broker.forwarder("orders", to=RedisBroker(own_redis.url, logger=None).publisher(stream=own_box.name), batch_size=50)
    handled: list[Any] = []

    @broker.subscriber("local")
    async def handle(body: Any) -> None:
        handled.append(body)

    await broker.start()
    ids: list[int] = []
    going_down_at, up_again_at, end = (time.monotonic() + seconds for seconds in (0.4, 1.4, 1.8))
    is_down = was_down = False
    meanwhile = 0
    while time.monotonic() < end:
        ids += await publishing.many(Outgoing(b"", key=f"key-{n % 10}") for n in range(20))
        if not was_down and time.monotonic() > going_down_at:
            own_redis.process.kill() if killed else await asyncio.to_thread(own_redis.stop)
            is_down = was_down = True
        if is_down:
            meanwhile += 1
            await publishing.one(meanwhile, queue="local")
            if time.monotonic() > up_again_at:
                await asyncio.to_thread(own_redis.start)
                is_down = False
        await asyncio.sleep(0.02)
    await eventually(table.is_empty, within=10)
    assert meanwhile > 5
    await eventually(lambda: len(handled) == meanwhile)
    messages = await own_box.messages()
    assert len(messages) - len(ids) <= 100, "at most what was in flight is repeated"
    check_complete(messages, ids)
    check_order(without_repeats(messages))
    assert len(log.at_least(logging.WARNING)) <= 3, log.at_least(logging.WARNING)
    # One lane may still report a success from before when the other has noticed the end.
    assert len(log.containing("works again")) in {1, 2}


async def fill_up(admin: Redis) -> None:
    await admin.config_set("maxmemory", "1")


async def make_room(admin: Redis) -> None:
    await admin.config_set("maxmemory", "0")


async def demote(admin: Redis) -> None:
    await admin.replicaof(LOOPBACK, 1)


async def promote(admin: Redis) -> None:
    await admin.replicaof("NO", "ONE")


async def occupy(admin: Redis) -> None:
    await admin.rename("orders", "elsewhere")
    await admin.set("orders", "text")


async def clear(admin: Redis) -> None:
    await admin.rename("elsewhere", "orders")


SITUATIONS: list[tuple[str, Callable[[Redis], Awaitable[None]], Callable[[Redis], Awaitable[None]]]] = [
    ("OOM", fill_up, make_room),
    ("READONLY", demote, promote),
    ("WRONGTYPE", occupy, clear),
]


@pytest.mark.parametrize(("code", "breaks", "mends"), SITUATIONS, ids=[code for code, *_ in SITUATIONS])
async def test_a_server_that_takes_nothing(
    code: str,
    breaks: Callable[[Redis], Awaitable[None]],
    mends: Callable[[Redis], Awaitable[None]],
    make_broker: MakeBroker,
    own_redis: EmbeddedRedis,
    own_box: Box,
    publishing: Publishing,
    table: Table,
    log: LogLines,
) -> None:
    broker = make_broker(logger=log)
    broker.forwarder("orders", to=RedisBroker(own_redis.url, logger=None).publisher(stream=own_box.name))
    await broker.start()
    ids = await publishing.many(Outgoing(b"", key=f"key-{n % 3}") for n in range(50))
    await eventually(table.is_empty)
    async with own_redis.client() as admin:
        await breaks(admin)
        ids += await publishing.many(Outgoing(b"", key=f"key-{n % 3}") for n in range(200))
        await eventually(lambda: log.at_least(logging.WARNING))
        await asyncio.sleep(1.0)
        await _nothing_is_counted(table)
        # Nothing is claimed while the destination is down: every row can be locked by someone else.
        assert len(await table.query("SELECT id FROM outbox FOR UPDATE SKIP LOCKED")) == 200
        [line] = log.at_least(logging.WARNING)
        assert code in line
        await mends(admin)
        await eventually(table.is_empty, within=10)
    messages = await own_box.messages()
    assert len(messages) == len(ids), "nothing was repeated"
    check_complete(messages, ids)
    assert len(log.containing("works again")) == 1


async def test_a_hand_over_without_an_answer_is_given_up_and_sent_again(
    make_broker: MakeBroker,
    proxied_redis: RedisBroker,
    redis_proxy: TcpProxy,
    box: Box,
    publishing: Publishing,
    table: Table,
    log: LogLines,
) -> None:
    broker = make_broker(logger=log)
    broker.forwarder("orders", to=proxied_redis.publisher(stream=box.name), send_timeout=0.5)
    await broker.start()
    ids = [await publishing.one(b"it works", key="key-0")]
    await eventually(table.is_empty)
    redis_proxy.black_hole()
    ids += await publishing.many(Outgoing(b"", key=f"key-{n % 5}") for n in range(50))
    await eventually(lambda: log.containing("TimeoutError"))
    await _nothing_is_counted(table)
    # What the network has held back arrives now, on connections that were given up.
    await redis_proxy.restore()
    await eventually(table.is_empty, within=10)
    messages = await box.messages()
    check_complete(messages, ids)
    check_order(messages[len(messages) - 50 :])

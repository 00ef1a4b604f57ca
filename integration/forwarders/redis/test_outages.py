"""G5: a destination that is down is no failure of any row."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from faststream.redis import RedisBroker
from redis.asyncio import Redis

from faststream_outbox import Outgoing
from faststream_outbox._values.outcome import Accepted, Unsent
from integration.broker.observing import LogLines, Table, eventually
from integration.destinations.received import check_complete, check_order, without_repeats
from integration.destinations.redis import StreamBox
from integration.faults.proxy import TcpProxy
from integration.forwarders.carrying import Publishing, nothing_is_counted, restart_while_rows_flow
from integration.forwarders.conftest import MakeBroker
from integration.forwarders.parcels import carry, destination, parcel
from integration.servers.process import LOOPBACK
from integration.servers.redis import EmbeddedRedis, running_own_redis


@pytest.mark.parametrize("killed", [False, True])
async def test_a_restart_of_the_server_while_rows_flow(
    killed: bool,
    make_broker: MakeBroker,
    own_redis: EmbeddedRedis,
    own_box: StreamBox,
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

    async def a_local_message_is_handled() -> None:
        await publishing.one(1, queue="local")
        await eventually(lambda: handled)

    await broker.start()
    ids = await restart_while_rows_flow(
        own_redis, publishing, table, log, killed=killed, meanwhile=a_local_message_is_handled
    )
    messages = await own_box.read()
    assert len(messages) - len(ids) <= 100, "at most what was in flight is repeated"
    check_complete(messages, ids)
    check_order(without_repeats(messages))
    assert len(log.at_least(logging.WARNING)) <= 3, log.at_least(logging.WARNING)
    # One lane may still report a success from before when the other has noticed the end.
    await eventually(lambda: log.containing("works again"))
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
    own_box: StreamBox,
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
        await nothing_is_counted(table)
        # Nothing is claimed while the destination is down: every row can be locked by someone else.
        assert len(await table.query("SELECT id FROM outbox FOR UPDATE SKIP LOCKED")) == 200
        [line] = log.at_least(logging.WARNING)
        assert code in line
        await mends(admin)
        await eventually(table.is_empty, within=10)
    messages = await own_box.read()
    assert len(messages) == len(ids), "nothing was repeated"
    check_complete(messages, ids)
    await eventually(lambda: log.containing("works again"))
    assert len(log.containing("works again")) == 1


async def cut_off(admin: Redis) -> None:
    await admin.config_set("min-replicas-to-write", "1")


@pytest.mark.parametrize("loses_its_role", [demote, cut_off])
async def test_a_server_that_has_lost_its_role_is_left_for_the_one_that_has_it_now(
    loses_its_role: Callable[[Redis], Awaitable[None]], own_redis: EmbeddedRedis
) -> None:
    """As where a name or a proxy leads to the primary, and open connections stay with the one before."""
    with running_own_redis() as promoted:
        async with (
            TcpProxy(LOOPBACK, own_redis.port.number) as proxy,
            destination(RedisBroker(f"redis://{proxy.address}", logger=None).publisher(stream="orders")) as to,
        ):
            rows = [parcel() for _ in range(3)]
            assert await carry(to, rows[:1]) == [Accepted()]
            async with own_redis.client() as admin:
                await loses_its_role(admin)
            proxy.upstream_port = promoted.port.number
            [verdict] = await to.send(rows[1:2])
            assert isinstance(verdict, Unsent)
            assert await carry(to, rows[1:]) == [Accepted()] * 2
        messages = await StreamBox(promoted, "orders").read()
    assert [message.row_id for message in messages] == [each.row.id for each in rows[1:]]

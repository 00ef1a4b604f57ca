"""G8: a stop finishes what is in flight, repeats nothing, and does not wait for ever."""

import time

import psutil
import pytest
from faststream.rabbit import RabbitBroker

from faststream_outbox import Outgoing
from integration.broker.observing import Table, eventually
from integration.faults.proxy import TcpProxy
from integration.forwarders.carrying import Publishing
from integration.forwarders.conftest import MakeBroker
from integration.servers.queues import Mailbox
from integration.servers.rabbitmq import RabbitServer

from .carrying import as_records, check_complete

SMALL = 1.5


async def test_stops_under_load_repeat_and_lose_nothing(
    make_broker: MakeBroker, rabbit: RabbitBroker, mailbox: Mailbox, publishing: Publishing, table: Table
) -> None:
    ids = await publishing.many(Outgoing(b"x" * 300, key=f"key-{n % 50}" if n % 2 else None) for n in range(2500))
    for _ in range(5):
        broker = make_broker()
        broker.forwarder("orders", to=rabbit.publisher(mailbox.name), batch_size=100)
        before = await table.count()
        await broker.start()
        await eventually(lambda before=before: _fewer(table, before))
        await broker.stop()
    assert not await table.is_empty(), "the stops came under load"
    broker = make_broker()
    broker.forwarder("orders", to=rabbit.publisher(mailbox.name))
    await broker.start()
    await eventually(table.is_empty, within=20)
    messages = await mailbox.messages(len(ids))
    assert len(messages) == len(ids)
    check_complete(as_records(messages), ids)


async def _fewer(table: Table, before: int) -> bool:
    return await table.count() < before


@pytest.mark.parametrize("grace", [0.0, 0.7])
async def test_a_stop_does_not_wait_longer_than_its_grace_for_a_rabbitmq_that_hangs(
    *,
    grace: float,
    make_broker: MakeBroker,
    proxied_rabbit: RabbitBroker,
    rabbit_proxy: TcpProxy,
    mailbox: Mailbox,
    publishing: Publishing,
    table: Table,
) -> None:
    broker = make_broker(graceful_timeout=grace)
    broker.forwarder("orders", to=proxied_rabbit.publisher(mailbox.name))
    await broker.start()
    await publishing.one(b"it works")
    await eventually(table.is_empty, within=10)
    rabbit_proxy.black_hole()
    await publishing.many([Outgoing(b"x" * 100_000)] * 40)
    await eventually(lambda: _are_being_sent(table))
    began = time.monotonic()
    await broker.stop()
    assert time.monotonic() - began < grace + SMALL
    free = await table.query("SELECT id, attempts_count FROM outbox FOR UPDATE SKIP LOCKED")
    assert len(free) == 40
    assert {row.attempts_count for row in free} == {0}
    # What was given up does not arrive afterwards.
    rabbit_proxy.reset()
    await rabbit_proxy.restore()
    assert [message.body for message in await mailbox.messages(1)] == [b"it works"]


async def _are_being_sent(table: Table) -> bool:
    return len(await table.query("SELECT id FROM outbox FOR UPDATE SKIP LOCKED")) < await table.count()


async def test_a_stop_does_not_wait_for_a_connection(
    make_broker: MakeBroker,
    proxied_rabbit: RabbitBroker,
    rabbit_proxy: TcpProxy,
    mailbox: Mailbox,
    publishing: Publishing,
) -> None:
    rabbit_proxy.black_hole()
    broker = make_broker(graceful_timeout=30.0)
    broker.forwarder("orders", to=proxied_rabbit.publisher(mailbox.name))
    await publishing.one(b"")
    await broker.start()
    await eventually(lambda: _connections_to(rabbit_proxy.port))
    began = time.monotonic()
    await broker.stop()
    assert time.monotonic() - began < SMALL


def _connections_to(port: int) -> list[object]:
    connections = psutil.Process().net_connections("tcp")
    return [c for c in connections if c.raddr and c.raddr.port == port and c.status == psutil.CONN_ESTABLISHED]


async def test_what_the_application_has_opened_stays_open_and_ours_is_closed(
    make_broker: MakeBroker,
    rabbit: RabbitBroker,
    rabbit_server: RabbitServer,
    mailbox: Mailbox,
    publishing: Publishing,
) -> None:
    await rabbit.start()
    publisher = rabbit.publisher(mailbox.name)
    await publisher.publish(b"the application's")
    theirs = len(_connections_to(rabbit_server.port))
    broker = make_broker()
    broker.forwarder("orders", to=publisher)
    await broker.start()
    await publishing.one(b"ours")
    await mailbox.messages(2)
    assert len(_connections_to(rabbit_server.port)) > theirs
    await broker.stop()
    await eventually(lambda: len(_connections_to(rabbit_server.port)) <= theirs)
    await publisher.publish(b"the application's")
    assert len(await mailbox.messages(3)) == 3
    await rabbit.stop()


async def test_a_broker_that_nobody_started_is_not_connected_by_us(
    make_broker: MakeBroker,
    rabbit: RabbitBroker,
    rabbit_server: RabbitServer,
    mailbox: Mailbox,
    publishing: Publishing,
) -> None:
    broker = make_broker()
    broker.forwarder("orders", to=rabbit.publisher(mailbox.name))
    for _ in range(2):  # A broker can be started again.
        await broker.start()
        await publishing.one(b"")
        await eventually(lambda: _connections_to(rabbit_server.port))
        await broker.stop()
        await eventually(lambda: not _connections_to(rabbit_server.port))
    assert not rabbit.running
    assert len(await mailbox.messages(1)) >= 1

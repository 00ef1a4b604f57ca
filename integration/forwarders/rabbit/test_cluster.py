"""A cluster whose other node, which has the queue, is gone: a classic queue lives on one node alone."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aio_pika
import pytest
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue

from faststream_outbox import ConstantRetry, Forward, OutboxMessage, Outgoing
from integration.broker.observing import LogLines, Table, eventually
from integration.destinations.rabbit import QueueBox
from integration.destinations.received import check_complete
from integration.forwarders.carrying import Publishing, nothing_is_counted
from integration.forwarders.conftest import MakeBroker
from integration.servers.missing import missing
from integration.servers.process import ServerUnavailable
from integration.servers.rabbitmq import EmbeddedRabbit, RabbitServer


@pytest.fixture(scope="module")
def rabbit_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """A server for these tests alone: one that has been in a cluster is another one afterwards."""
    try:
        server = EmbeddedRabbit(tmp_path_factory.mktemp("first"))
    except ServerUnavailable as unavailable:
        missing(str(unavailable))
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
async def other_node(rabbit_server: EmbeddedRabbit, tmp_path: Path) -> AsyncIterator[EmbeddedRabbit]:
    running = rabbit_server.second_node(tmp_path)
    yield await asyncio.to_thread(running.__enter__)
    await asyncio.to_thread(running.__exit__, None, None, None)


async def test_the_node_of_a_queue_is_down_and_no_message_dies_of_it(
    *,
    make_broker: MakeBroker,
    rabbit: RabbitBroker,
    other_node: EmbeddedRabbit,
    mailbox: QueueBox,
    publishing: Publishing,
    table: Table,
    log: LogLines,
) -> None:
    """RabbitMQ answers basic.nack since 4.0; before, it returns the message as if there were no such queue."""
    name = f"{mailbox.name}-far"
    async with await aio_pika.connect(other_node.url) as connection, connection.channel() as channel:
        await channel.declare_queue(name, durable=True)
    other_node.process.kill()

    def near(message: OutboxMessage) -> Forward:
        return Forward(to=mailbox.name if message.headers.get("goes") == "near" else None)

    broker = make_broker(logger=log)
    retry = ConstantRetry(delay_seconds=0.05, max_attempts=3)
    forwarder = broker.forwarder("orders", to=rabbit.publisher(name), transform=near, retry_strategy=retry)
    ids = await publishing.many(Outgoing(b"", key=f"key-{n % 5}") for n in range(30))
    await broker.start()
    [line] = await eventually(lambda: log.at_least(logging.WARNING), within=10)
    assert "down" in line
    others = await publishing.many(Outgoing(b"", key=f"near-{n % 5}", headers={"goes": "near"}) for n in range(30))
    check_complete(await mailbox.received(30), others)
    status = await forwarder.status()
    assert status.state == "flowing"
    assert [part.name for part in status.parts_down] == [name]
    await nothing_is_counted(table)

    await asyncio.to_thread(other_node.start)
    check_complete(await QueueBox(other_node, name).received(30, within=70), ids)
    await eventually(table.is_empty)
    assert len(log.at_least(logging.WARNING)) == 1
    async with await aio_pika.connect(other_node.url) as connection, connection.channel() as channel:
        await channel.queue_delete(name)


async def test_the_node_of_a_queue_behind_an_exchange_is_down(
    *,
    make_broker: MakeBroker,
    rabbit: RabbitBroker,
    rabbit_server: EmbeddedRabbit,
    other_node: EmbeddedRabbit,
    publishing: Publishing,
    table: Table,
) -> None:
    """Before 4.0 RabbitMQ says of such a message that no queue is bound; the publisher's queue can be asked about."""
    name = rabbit_server.new_name()
    async with await aio_pika.connect(other_node.url) as connection, connection.channel() as channel:
        exchange = await channel.declare_exchange(name, "topic", durable=True)
        for queue in (f"{name}-far", f"{name}-strange"):
            await (await channel.declare_queue(queue, durable=True)).bind(exchange, f"{queue}-key")
    other_node.process.kill()
    broker = make_broker()
    retry = ConstantRetry(delay_seconds=600)
    shop = RabbitExchange(name, type=ExchangeType.TOPIC, durable=True)
    to = rabbit.publisher(RabbitQueue(f"{name}-far", routing_key=f"{name}-far-key"), exchange=shop)

    def strange(message: OutboxMessage) -> Forward:
        return Forward(to=f"{name}-strange-key" if message.headers.get("goes") == "strange" else None)

    forwarder = broker.forwarder("orders", to=to, retry_strategy=retry, transform=strange)
    ids = await publishing.many(Outgoing(b"", key=f"key-{n % 5}") for n in range(10))
    await broker.start()

    async def is_down() -> bool:
        return [part.name for part in (await forwarder.status()).parts_down] == [f"{name}-far-key"]

    await eventually(is_down, within=10)
    await nothing_is_counted(table)
    # Its queue is called neither as the publisher's is nor as its routing key: RabbitMQ before 4.0 does not tell.
    await publishing.many([Outgoing(b"", headers={"goes": "strange"})])
    if not (await rabbit_server.version()).startswith("4."):

        async def is_refused() -> bool:
            return await table.count("attempts_count = 1") == 1

        await eventually(is_refused)
    await asyncio.to_thread(other_node.start)
    check_complete(await QueueBox(other_node, f"{name}-far").received(10, within=70), ids)
    async with await aio_pika.connect(other_node.url) as connection, connection.channel() as channel:
        await channel.queue_delete(f"{name}-far")
        await channel.queue_delete(f"{name}-strange")
        await channel.exchange_delete(name)


async def test_a_queue_that_never_was_is_no_queue_whose_node_is_down(
    *, make_broker: MakeBroker, rabbit: RabbitBroker, other_node: EmbeddedRabbit, publishing: Publishing, table: Table
) -> None:
    broker = make_broker()
    retry = ConstantRetry(delay_seconds=60)
    broker.forwarder("orders", to=rabbit.publisher("outbox-nowhere"), retry_strategy=retry)
    await publishing.many([Outgoing(b"")] * 20)
    other_node.process.kill()
    await broker.start()
    await eventually(lambda: _all_refused(table))


async def _all_refused(table: Table) -> bool:
    return await table.count("attempts_count = 1") == 20

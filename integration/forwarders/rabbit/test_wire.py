"""What is special about RabbitMQ's messages: section "On the wire" of the contract."""

import json
from collections.abc import AsyncIterator
from datetime import datetime

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue, RabbitRouter

from faststream_outbox import OutboxBroker, OutboxRouter, Outgoing
from integration.broker.observing import Table, eventually
from integration.destinations.rabbit import QueueBox
from integration.forwarders.carrying import Publishing
from integration.servers.rabbitmq import RabbitServer

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def channel(rabbit_server: RabbitServer, nothing_is_left_behind: None) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(rabbit_server.url) as connection, connection.channel() as channel:
        yield channel


@pytest.fixture
async def exchange(channel: AbstractChannel) -> AsyncIterator[str]:
    """The name of an exchange that is deleted afterwards."""
    name = RabbitServer.new_name()
    yield name
    await channel.exchange_delete(name)


async def test_a_message_carries_the_row(
    broker: OutboxBroker, rabbit: RabbitBroker, mailbox: QueueBox, publishing: Publishing, table: Table
) -> None:
    row_id = await publishing.one(
        {"order": 1, "name": "Müller"},
        key="kunde-ü",
        headers={"traceparent": TRACEPARENT, "X-Größe": "☃", "x-" + "n" * 253: "a long name"},
        correlation_id="correlation 1",
        idempotency_key="order-1",
    )
    [row] = await table.rows()
    broker.forwarder("orders", to=rabbit.publisher(mailbox.name))
    await broker.start()
    [message] = await mailbox.messages(1)
    assert message.body == bytes(row.payload)
    assert json.loads(message.body) == {"order": 1, "name": "Müller"}
    assert message.message_id == "order-1"
    assert message.correlation_id == "correlation 1"
    assert message.content_type == "application/json"
    assert message.timestamp == row.created_at.replace(microsecond=0)
    assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    headers = dict(message.headers)
    created_at = str(headers.pop("outbox-created-at"))
    assert datetime.fromisoformat(created_at) == row.created_at
    assert created_at.endswith("Z")
    assert headers == {
        "traceparent": TRACEPARENT,
        "X-Größe": "☃",
        "x-" + "n" * 253: "a long name",
        "idempotency-key": "order-1",
        "outbox-id": str(row_id),
        "outbox-queue": "orders",
        "outbox-key": "kunde-ü",
        "correlation_id": "correlation 1",
        "content-type": "application/json",
    }
    await eventually(table.is_empty)


async def test_the_publisher_says_what_messages_carry(
    broker: OutboxBroker, rabbit_server: RabbitServer, mailbox: QueueBox, publishing: Publishing
) -> None:
    rabbit = RabbitBroker(rabbit_server.url, app_id="shop", logger=None)
    publisher = rabbit.publisher(
        mailbox.name,
        headers={"team": "shop", "x": "publisher", "tries": 3},
        reply_to="answers",
        priority=7,
        content_type="application/x-fallback",
        content_encoding="identity",
        expiration=90,
        message_type="order.created",
        user_id="guest",
    )
    broker.forwarder("orders", to=publisher)
    await publishing.many([Outgoing(b"1", headers={"content-type": "text/x-own", "x": "message"}), Outgoing(b"2\xff")])
    await broker.start()
    own, fallback = sorted(await mailbox.messages(2), key=lambda message: message.body)
    assert (own.content_type, fallback.content_type) == ("text/x-own", "application/x-fallback")
    assert (own.headers["x"], fallback.headers["x"]) == ("message", "publisher")
    for message in (own, fallback):
        assert (message.headers["team"], message.headers["tries"]) == ("shop", 3)
        assert (message.reply_to, message.priority, message.content_encoding) == ("answers", 7, "identity")
        assert (message.expiration, message.type, message.user_id) == (90.0, "order.created", "guest")
        assert message.app_id == "shop"


@pytest.mark.parametrize(
    ("kind", "bound_with", "routing_key"),
    [
        (ExchangeType.DIRECT, "orders.created", "orders.created"),
        (ExchangeType.TOPIC, "orders.*", "orders.created"),
        (ExchangeType.FANOUT, "", ""),
        (ExchangeType.HEADERS, "", ""),
    ],
    ids=lambda value: getattr(value, "value", None),
)
async def test_exchanges_route(
    *,
    kind: ExchangeType,
    bound_with: str,
    routing_key: str,
    broker: OutboxBroker,
    rabbit: RabbitBroker,
    rabbit_server: RabbitServer,
    channel: AbstractChannel,
    exchange: str,
    publishing: Publishing,
    table: Table,
) -> None:
    await channel.declare_exchange(exchange, kind.value, durable=True)
    binding = {"bind_x_match": "all", "bind_format": "pdf"} if kind is ExchangeType.HEADERS else {}
    async with QueueBox.declared(
        rabbit_server, rabbit_server.new_name(), exchange=exchange, routing_key=bound_with, **binding
    ) as mailbox:
        to = rabbit.publisher(exchange=RabbitExchange(exchange, type=kind), routing_key=routing_key)
        forwarder = broker.forwarder("orders", to=to)
        await publishing.many(Outgoing(b"%d" % n, headers={"format": "pdf"}) for n in range(20))
        await broker.start()
        assert forwarder.name == "rabbit:" + (f"{exchange}:{routing_key}" if routing_key else exchange)
        messages = await mailbox.messages(20)
        assert {message.exchange for message in messages} == {exchange}
        assert {message.routing_key for message in messages} == {routing_key}
        await eventually(table.is_empty)


async def test_the_exchange_is_declared_as_the_publisher_says_and_bound_to_its_parent(
    *,
    broker: OutboxBroker,
    rabbit: RabbitBroker,
    rabbit_server: RabbitServer,
    channel: AbstractChannel,
    exchange: str,
    publishing: Publishing,
) -> None:
    parent = RabbitExchange(f"{exchange}-parent", type=ExchangeType.TOPIC)
    child = RabbitExchange(exchange, type=ExchangeType.FANOUT, bind_to=parent, routing_key="orders.#")
    broker.forwarder("orders", to=rabbit.publisher(exchange=child))
    await broker.start()

    async def is_declared() -> bool:
        try:
            await channel.get_exchange(exchange, ensure=True)
            await channel.get_exchange(parent.name, ensure=True)
        except aio_pika.exceptions.ChannelClosed:
            await channel.reopen()
            return False
        return True

    await eventually(is_declared)
    async with QueueBox.declared(rabbit_server, rabbit_server.new_name(), exchange=exchange) as mailbox:
        await publishing.one(b"through the child")
        await mailbox.messages(1)
        sent_to_parent = await channel.get_exchange(parent.name)
        await sent_to_parent.publish(aio_pika.Message(b"through the parent"), "orders.new")
        assert [message.body for message in await mailbox.messages(2)] == [b"through the child", b"through the parent"]
    await broker.stop()
    await channel.exchange_delete(parent.name)


async def test_quorum_queues_have_the_row_before_it_leaves_the_table(
    broker: OutboxBroker, rabbit: RabbitBroker, rabbit_server: RabbitServer, publishing: Publishing, table: Table
) -> None:
    async with QueueBox.declared(rabbit_server, rabbit_server.new_name(), x_queue_type="quorum") as mailbox:
        broker.forwarder("orders", to=rabbit.publisher(RabbitQueue(mailbox.name, durable=True)))
        ids = await publishing.many(Outgoing(b"", key=f"key-{n % 7}") for n in range(100))
        await broker.start()
        await eventually(table.is_empty, within=10)
        assert sorted(int(str(m.headers["outbox-id"])) for m in await mailbox.messages(100)) == sorted(ids)


async def test_several_queues_prefixes_and_a_rabbit_router(
    broker: OutboxBroker, rabbit: RabbitBroker, mailbox: QueueBox, publishing: Publishing, table: Table
) -> None:
    start, _, end = mailbox.name.partition("-")
    rabbit_router = RabbitRouter(prefix=f"{start}-")
    router = OutboxRouter(prefix="shop.")
    forwarder = router.forwarder(["orders", "refunds"], to=rabbit_router.publisher(end))
    broker.include_router(router)
    rabbit.include_router(rabbit_router)
    for queue in ("shop.orders", "shop.refunds", "orders"):
        await publishing.one(b"", queue=queue)
    await broker.start()
    assert forwarder.name == f"rabbit:{mailbox.name}"
    messages = await mailbox.messages(2)
    assert {message.headers["outbox-queue"] for message in messages} == {"shop.orders", "shop.refunds"}
    await eventually(lambda: _is_left(table, "orders"))


async def _is_left(table: Table, queue: str) -> bool:
    return [row.queue for row in await table.rows()] == [queue]

"""Several consumers of one queue, each with its own copy of every message."""

from typing import Any

from faststream.kafka import KafkaBroker
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import Forward, OutboxBroker, OutboxMessage, Outgoing
from integration.broker.observing import Table, eventually
from integration.destinations.kafka import KafkaBox
from integration.destinations.received import check_order
from integration.servers.kafka import KafkaServer

from .conftest import MakeBroker


async def test_a_handler_and_two_topics_get_every_message_once(
    broker: OutboxBroker, kafka: KafkaBroker, kafka_server: KafkaServer, engine: AsyncEngine, table: Table
) -> None:
    handled: list[tuple[Any, str, str]] = []

    @broker.subscriber("orders")
    async def handle(body: int) -> None:
        message: OutboxMessage = broker.context.get_local("message")
        handled.append((body, message.queue, message.idempotency_key))

    def transform(message: OutboxMessage) -> Forward:
        return Forward(headers={"seen-in": message.queue})

    with kafka_server.topic(3) as first, kafka_server.topic(2) as second:
        topics = [KafkaBox(kafka_server, name) for name in (first, second)]
        for topic in topics:
            broker.forwarder("orders", to=kafka.publisher(topic.name), tee=True, transform=transform)
        messages = [Outgoing(n, key=f"k{n % 7}", idempotency_key=f"order-{n}") for n in range(60)]
        async with engine.begin() as connection:
            ids = await broker.publish_batch(*messages, queue="orders", session=connection)
            assert len(ids) == 60
            assert len(await broker.fetch_unprocessed(queue="orders", session=connection)) == 60
        await broker.start()
        for topic in topics:
            records = await topic.received(60)
            check_order(records)
            assert {record.headers["outbox-queue"] for record in records} == {"orders"}
            assert {record.headers["seen-in"] for record in records} == {"orders"}
            identities = {record.headers["idempotency-key"]: record.body for record in records}
            assert identities == {f"order-{n}": b"%d" % n for n in range(60)}
        await eventually(table.is_empty)
    assert sorted(handled) == [(n, "orders", f"order-{n}") for n in range(60)]


async def test_one_consumers_outage_is_not_the_others(
    make_broker: MakeBroker, kafka: KafkaBroker, topic: KafkaBox, engine: AsyncEngine, table: Table
) -> None:
    broker = make_broker(graceful_timeout=1.0)
    nowhere = KafkaBroker("127.0.0.1:1", acks="all", logger=None)
    broker.forwarder("orders", to=kafka.publisher(topic.name))
    broker.forwarder("orders", to=nowhere.publisher("orders"), tee=True, name="nowhere")
    await broker.start()
    async with engine.begin() as connection:
        await broker.publish("x", queue="orders", session=connection, idempotency_key="once")
    await topic.received(1)
    await eventually(lambda: _queues(table, ["orders=>nowhere"]))
    # The message itself is done, so it may be published again; its copy waits, and stands for the new one.
    async with engine.begin() as connection:
        assert await broker.publish("x", queue="orders", session=connection, idempotency_key="once")
    await topic.received(2)
    await eventually(lambda: _queues(table, ["orders=>nowhere"]))


async def _queues(table: Table, expected: list[str]) -> bool:
    return [row.queue for row in await table.rows()] == expected

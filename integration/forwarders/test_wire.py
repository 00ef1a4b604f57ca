"""What a consumer of the topic finds: section "On the wire" of the contract, record by record."""

import json
import random
import string
from datetime import datetime
from typing import Any

import pytest
from faststream import Context
from faststream.kafka import KafkaBroker, KafkaRouter
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import OutboxBroker, OutboxRouter, Outgoing
from integration.broker.observing import Table, eventually

from .carrying import Publishing, Topic, headers_of

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OURS = {"idempotency-key", "outbox-id", "outbox-queue", "outbox-created-at", "correlation_id", "content-type"}


async def test_a_record_carries_the_row(
    broker: OutboxBroker, kafka: KafkaBroker, topic: Topic, publishing: Publishing, table: Table
) -> None:
    row_id = await publishing.one(
        {"order": 1, "name": "Müller"},
        key="kunde-ü",
        headers={"traceparent": TRACEPARENT, "X-Größe": "☃"},
        correlation_id="correlation 1",
        idempotency_key="order-1",
    )
    [row] = await table.rows()
    broker.forwarder("orders", to=kafka.publisher(topic.name))
    await broker.start()
    [record] = await topic.records(1)
    assert record.key == "kunde-ü".encode()
    assert record.value == bytes(row.payload)
    assert json.loads(record.value or b"") == {"order": 1, "name": "Müller"}
    headers = headers_of(record)
    assert datetime.fromisoformat(headers["outbox-created-at"]) == row.created_at
    assert headers.pop("outbox-created-at").endswith("Z")
    assert headers == {
        "traceparent": TRACEPARENT,
        "X-Größe": "☃",
        "idempotency-key": "order-1",
        "outbox-id": str(row_id),
        "outbox-queue": "orders",
        "correlation_id": "correlation 1",
        "content-type": "application/json",
    }
    await eventually(table.is_empty)


async def test_random_bodies_and_headers_arrive_byte_for_byte(
    broker: OutboxBroker, kafka: KafkaBroker, topic: Topic, publishing: Publishing
) -> None:
    draw = random.Random(20)
    messages = [_random_message(draw) for _ in range(300)]
    ids = await publishing.many(messages)
    broker.forwarder("orders", to=kafka.publisher(topic.name), batch_size=37)
    await broker.start()
    received = {int(headers_of(record)["outbox-id"]): record for record in await topic.records(len(messages))}
    for row_id, message in zip(ids, messages, strict=True):
        record = received[row_id]
        assert record.value == message.body
        assert record.key == (None if message.key is None else message.key.encode())
        theirs = {name: value for name, value in headers_of(record).items() if name not in OURS}
        assert theirs == message.headers


def _random_message(draw: random.Random) -> Outgoing:
    alphabet = string.printable + "äß€😀\u2028\x7f\x01"

    def text(longest: int) -> str:
        return "".join(draw.choices(alphabet, k=draw.randint(1, longest)))

    return Outgoing(
        draw.randbytes(draw.choice((0, 1, 100, 3000))),
        key=draw.choice((None, text(8))),
        headers={"x-" + text(10): draw.choice(("", text(40))) for _ in range(draw.randint(0, 4))},
    )


@pytest.mark.parametrize("body", [{"a": [1, None]}, "text", b"\x00\xff", b"", 3.5, ["list"]], ids=repr)
async def test_a_consumer_of_the_topic_gets_what_a_local_subscriber_gets(
    body: Any,
    broker: OutboxBroker,
    kafka: KafkaBroker,
    topic: Topic,
    publishing: Publishing,
) -> None:
    local, remote = [], []

    @broker.subscriber("local")
    async def handle(body: Any, message: Any = Context()) -> None:
        local.append((body, message))

    @kafka.subscriber(topic.name, auto_offset_reset="earliest")
    async def consume(body: Any, message: Any = Context()) -> None:
        remote.append((body, message))

    broker.forwarder("remote", to=kafka.publisher(topic.name))
    for queue in ("local", "remote"):
        await publishing.one(body, queue=queue, headers={"x": "y"}, correlation_id="c", idempotency_key="i")
    async with kafka:
        await kafka.start()
        await broker.start()
        await eventually(lambda: local and remote, within=10)
    [(local_body, local_message)], [(remote_body, remote_message)] = local, remote
    assert remote_body == local_body
    assert remote_message.body == local_message.body
    assert remote_message.correlation_id == local_message.correlation_id == "c"
    its_own = ("outbox-id", "outbox-queue", "outbox-created-at")
    assert {name: value for name, value in remote_message.headers.items() if name not in its_own} == {
        name: value for name, value in local_message.headers.items() if name not in its_own
    }


async def test_the_publisher_says_where_records_go_and_what_they_carry(
    broker: OutboxBroker, kafka: KafkaBroker, topic: Topic, publishing: Publishing
) -> None:
    publisher = kafka.publisher(
        topic.name, partition=4, key=b"default", headers={"team": "shop", "x": "publisher"}, reply_to="answers"
    )
    broker.forwarder("orders", to=publisher)
    await publishing.many([Outgoing(b"1"), Outgoing(b"2", key="own", headers={"x": "message"})])
    await broker.start()
    without_key, with_key = sorted(await topic.records(2), key=lambda record: record.value or b"")
    assert {without_key.partition, with_key.partition} == {4}
    assert (without_key.key, with_key.key) == (b"default", b"own")
    assert headers_of(without_key)["team"] == headers_of(with_key)["team"] == "shop"
    assert headers_of(without_key)["x"] == "publisher"
    assert headers_of(with_key)["x"] == "message"
    assert headers_of(with_key)["reply_to"] == "answers"


async def test_several_queues_prefixes_and_a_kafka_router(
    make_broker: Any, kafka: KafkaBroker, topic: Topic, publishing: Publishing, table: Table
) -> None:
    broker = make_broker()
    start, _, end = topic.name.partition("-")
    kafka_router = KafkaRouter(prefix=f"{start}-")
    router = OutboxRouter(prefix="shop.")
    forwarder = router.forwarder(["orders", "refunds"], to=kafka_router.publisher(end))
    broker.include_router(router)
    kafka.include_router(kafka_router)
    for queue in ("shop.orders", "shop.refunds", "orders"):
        await publishing.one(b"", queue=queue)
    await broker.start()
    assert forwarder.name == f"kafka:{topic.name}"
    records = await topic.records(2)
    assert {headers_of(record)["outbox-queue"] for record in records} == {"shop.orders", "shop.refunds"}
    assert await eventually(lambda: _is_left(table, "orders"))


async def _is_left(table: Table, queue: str) -> bool:
    return [row.queue for row in await table.rows()] == [queue]


async def test_records_are_compressed_as_the_broker_says(
    broker: OutboxBroker, kafka_server: Any, topic: Topic, publishing: Publishing, engine: AsyncEngine
) -> None:
    kafka = KafkaBroker(kafka_server.bootstrap, acks=-1, compression_type="gzip", logger=None)
    broker.forwarder("orders", to=kafka.publisher(topic.name))
    body = b"the same again and again " * 4000
    await publishing.one(body)
    await broker.start()
    [record] = await topic.records(1)
    assert record.value == body

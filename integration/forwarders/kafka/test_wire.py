"""What is special about records: section "On the wire" of the contract."""

from typing import Any

import pytest
from faststream.kafka import KafkaBroker, KafkaRouter
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import OutboxBroker, OutboxRouter, Outgoing
from integration.broker.observing import Table, eventually
from integration.destinations.kafka import KafkaBox, as_received
from integration.forwarders.carrying import Publishing


async def test_the_publisher_says_where_records_go_and_what_they_carry(
    broker: OutboxBroker, kafka: KafkaBroker, topic: KafkaBox, publishing: Publishing
) -> None:
    publisher = kafka.publisher(
        topic.name, partition=4, key=b"default", headers={"team": "shop", "x": "publisher"}, reply_to="answers"
    )
    broker.forwarder("orders", to=publisher)
    await publishing.many([Outgoing(b"1"), Outgoing(b"2", key="own", headers={"x": "message"})])
    await broker.start()
    without_key, with_key = sorted(await topic.received(2), key=lambda record: record.body)
    assert {without_key.place, with_key.place} == {4}
    assert (without_key.key, with_key.key) == ("default", "own")
    assert without_key.headers["team"] == with_key.headers["team"] == "shop"
    assert without_key.headers["x"] == "publisher"
    assert with_key.headers["x"] == "message"
    assert with_key.headers["reply_to"] == "answers"


async def test_several_queues_prefixes_and_a_kafka_router(
    make_broker: Any, kafka: KafkaBroker, topic: KafkaBox, publishing: Publishing, table: Table
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
    records = await topic.received(2)
    assert {record.headers["outbox-queue"] for record in records} == {"shop.orders", "shop.refunds"}
    assert await eventually(lambda: _is_left(table, "orders"))


async def _is_left(table: Table, queue: str) -> bool:
    return [row.queue for row in await table.rows()] == [queue]


async def test_records_are_compressed_as_the_broker_says(
    broker: OutboxBroker, kafka_server: Any, topic: KafkaBox, publishing: Publishing, engine: AsyncEngine
) -> None:
    kafka = KafkaBroker(kafka_server.bootstrap, acks=-1, compression_type="gzip", logger=None)
    broker.forwarder("orders", to=kafka.publisher(topic.name))
    body = b"the same again and again " * 4000
    await publishing.one(body)
    await broker.start()
    [record] = await topic.received(1)
    assert record.body == body


@pytest.mark.parametrize("tombstones", [True, False])
async def test_a_body_that_is_none_deletes_its_key_where_that_is_wanted(
    tombstones: bool, broker: OutboxBroker, kafka: KafkaBroker, topic: KafkaBox, publishing: Publishing
) -> None:
    broker.forwarder("orders", to=kafka.publisher(topic.name), tombstones=tombstones)
    for body, key in (({"total": 1}, "k"), (None, "k"), (None, None), ("", "k")):
        await publishing.one(body, key=key)
    await broker.start()
    records = sorted(await topic.records(4), key=lambda record: as_received(record).row_id)
    assert [record.value for record in records] == [b'{"total":1}', None if tombstones else b"", b"", b""]
    assert as_received(records[1]).headers["outbox-queue"] == "orders"


async def test_a_caller_does_not_say_where_consumers_reply(
    broker: OutboxBroker, kafka: KafkaBroker, topic: KafkaBox, publishing: Publishing, table: Table
) -> None:
    broker.forwarder("orders", to=kafka.publisher(topic.name, reply_to="answers"))
    await publishing.one(b"", headers={"team": "shop"})
    # `publish` may refuse them; a row may come from elsewhere.
    await table.query("""UPDATE outbox SET headers = headers || '{"reply_to": "admin", "Reply_To": "admin"}'""")
    await broker.start()
    [record] = await topic.received(1)
    assert {name: value for name, value in record.headers.items() if name.lower() == "reply_to"} == {
        "reply_to": "answers"
    }
    assert record.headers["team"] == "shop"

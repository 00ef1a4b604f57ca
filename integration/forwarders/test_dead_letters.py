"""G11: what Kafka refuses for good goes to the dead letters with its reason, and stalls nothing."""

from typing import Any

from faststream.kafka import KafkaBroker
from sqlalchemy import Table as SqlTable

from faststream_outbox import OutboxBroker, Outgoing
from integration.broker.observing import Table, eventually
from integration.servers.kafka import KafkaServer

from .carrying import Publishing, Topic, row_id
from .conftest import MakeBroker

LIMIT = "20000"


async def test_a_row_over_the_topics_limit_is_parked_and_its_neighbours_are_sent(
    broker: OutboxBroker, kafka: KafkaBroker, kafka_server: KafkaServer, publishing: Publishing, table: Table
) -> None:
    with kafka_server.topic(1, max_message_bytes=LIMIT) as name:
        broker.forwarder("orders", to=kafka.publisher(name), lanes=1)
        messages = [Outgoing(b"%d" % number, key="k") for number in range(9)]
        messages[4] = Outgoing(b"x" * 30_000, key="k")
        ids = await publishing.many(messages)
        await broker.start()
        records = await Topic(kafka_server.bootstrap, name).records(8)
        assert [row_id(record) for record in records] == [*ids[:4], *ids[5:]]
        [parked] = await eventually(lambda: _settled(table, 1))
    assert parked.id == ids[4]
    assert bytes(parked.payload) == messages[4].body
    assert parked.failure_reason == "too_large"
    assert parked.failed_at is not None
    assert "MESSAGE_SIZE_TOO_LARGE" in parked.last_exception
    assert parked.attempts_count == 1


async def _settled(table: Table, count: int, name: str = "outbox") -> Any:
    rows = await table.rows(name)
    return len(rows) == count and all(row.failed_at for row in rows) and rows


async def test_with_a_dead_letter_table_the_row_moves_there(
    *,
    make_broker: MakeBroker,
    dlq_table: SqlTable,
    kafka: KafkaBroker,
    kafka_server: KafkaServer,
    publishing: Publishing,
    table: Table,
) -> None:
    broker = make_broker(dlq_table=dlq_table)
    with kafka_server.topic(1, max_message_bytes=LIMIT) as name:
        broker.forwarder("orders", to=kafka.publisher(name))
        poison = await publishing.one(b"x" * 30_000, idempotency_key="poison", headers={"x": "y"})
        await publishing.one(b"fine")
        await broker.start()
        [record] = await Topic(kafka_server.bootstrap, name).records(1)
        assert record.value == b"fine"
        await eventually(table.is_empty)
    [dead] = await table.rows("outbox_dlq")
    assert (dead.id, dead.idempotency_key, dead.failure_reason) == (poison, "poison", "too_large")
    assert bytes(dead.payload) == b"x" * 30_000
    assert dead.headers["x"] == "y"


async def test_a_row_over_the_brokers_own_limit_says_which_option_to_raise(
    broker: OutboxBroker, kafka_server: KafkaServer, topic: Topic, publishing: Publishing, table: Table
) -> None:
    kafka = KafkaBroker(kafka_server.bootstrap, acks="all", max_request_size=5000, logger=None)
    broker.forwarder("orders", to=kafka.publisher(topic.name))
    ids = await publishing.many(Outgoing(b"x" * size) for size in (10, 6000, 20, 4000))
    await broker.start()
    assert {row_id(record) for record in await topic.records(3)} == {ids[0], ids[2], ids[3]}
    [parked] = await eventually(lambda: _settled(table, 1))
    assert parked.failure_reason == "too_large"
    assert "max_request_size" in parked.last_exception


async def test_a_record_that_kafka_finds_invalid_is_parked(
    broker: OutboxBroker, kafka: KafkaBroker, kafka_server: KafkaServer, publishing: Publishing, table: Table
) -> None:
    with kafka_server.topic(1, cleanup_policy="compact") as name:
        broker.forwarder("orders", to=kafka.publisher(name))
        # A compacted topic takes no record without a key.
        ids = await publishing.many(Outgoing(b"", key=key) for key in ("a", None, "b", "c"))
        await broker.start()
        records = await Topic(kafka_server.bootstrap, name).records(3)
        assert {row_id(record) for record in records} == {ids[0], ids[2], ids[3]}
        [parked] = await eventually(lambda: _settled(table, 1))
    assert parked.id == ids[1]
    assert parked.failure_reason == "invalid"
    assert "(87)" in parked.last_exception

"""G11: what Kafka refuses for good goes to the dead letters with its reason, and stalls nothing."""

import asyncio
from typing import Any

import pytest
from faststream.kafka import KafkaBroker
from sqlalchemy import Table as SqlTable

from faststream_outbox import OutboxBroker, Outgoing
from integration.broker.observing import Table, eventually
from integration.destinations.kafka import KafkaBox
from integration.destinations.received import check_order
from integration.forwarders.carrying import Publishing
from integration.servers.kafka import KafkaServer

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
        records = await KafkaBox(kafka_server, name).received(8)
        assert [record.row_id for record in records] == [*ids[:4], *ids[5:]]
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
        [record] = await KafkaBox(kafka_server, name).received(1)
        assert record.body == b"fine"
        await eventually(table.is_empty)
    [dead] = await table.rows("outbox_dlq")
    assert (dead.id, dead.idempotency_key, dead.failure_reason) == (poison, "poison", "too_large")
    assert bytes(dead.payload) == b"x" * 30_000
    assert dead.headers["x"] == "y"


async def test_a_row_over_the_brokers_own_limit_says_which_option_to_raise(
    broker: OutboxBroker, kafka_server: KafkaServer, topic: KafkaBox, publishing: Publishing, table: Table
) -> None:
    kafka = KafkaBroker(kafka_server.bootstrap, acks="all", max_request_size=5000, logger=None)
    broker.forwarder("orders", to=kafka.publisher(topic.name))
    ids = await publishing.many(Outgoing(b"x" * size) for size in (10, 6000, 20, 4000))
    await broker.start()
    assert {record.row_id for record in await topic.received(3)} == {ids[0], ids[2], ids[3]}
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
        records = await KafkaBox(kafka_server, name).received(3)
        assert {record.row_id for record in records} == {ids[0], ids[2], ids[3]}
        [parked] = await eventually(lambda: _settled(table, 1))
    assert parked.id == ids[1]
    assert parked.failure_reason == "invalid"
    assert "(87)" in parked.last_exception


@pytest.mark.parametrize("has_table", [False, True], ids=["parked", "with a dead-letter table"])
async def test_g4_a_dead_letter_holds_its_key_until_it_is_replayed_or_discarded(
    *,
    make_broker: MakeBroker,
    dlq_table: SqlTable,
    kafka: KafkaBroker,
    kafka_server: KafkaServer,
    publishing: Publishing,
    table: Table,
    has_table: bool,
) -> None:
    tables = {"dlq_table": dlq_table} if has_table else {}
    with kafka_server.topic(1, max_message_bytes=LIMIT) as name:
        brokers = [make_broker(**tables) for _ in range(2)]
        for broker in brokers:
            broker.forwarder("orders", to=kafka.publisher(name), hold_key=True, batch_size=20)
        [broker, _] = brokers
        messages = [Outgoing(b"%d" % n, key=f"k{n % 3}") for n in range(60)]
        # One behind the other in one hand-over: the second of them is found only when the first has gone.
        messages[15] = Outgoing(b"x" * 30_000, key="k0", idempotency_key="first")
        messages[18] = Outgoing(b"y" * 30_000, key="k0", idempotency_key="second")
        poison = Outgoing(b"z" * 30_000)
        ids = await publishing.many([*messages, poison])
        await asyncio.gather(*(each.start() for each in brokers))
        topic = KafkaBox(kafka_server, name)
        await eventually(lambda: _dead(broker, 2))
        records = await topic.received(45)
        assert sorted(record.row_id for record in records) == sorted(
            [*(i for n, i in enumerate(ids[:60]) if n % 3), *(ids[n] for n in range(0, 15, 3))]
        )
        check_order(records)
        assert await table.count(name="outbox_dlq") == (1 if has_table else 0), "only the one without a key moves"
        letters = await broker.dead_letters.list(key="k0")
        assert [letter.row.id for letter in letters] == [ids[15]]

        await _raise_the_limit(kafka_server, name)
        assert await broker.dead_letters.replay(key="k0") == 1
        await eventually(lambda: _dead(broker, 1, key=None), within=10)
        records = await topic.received(60)
        assert len(records) == 60
        of_key = [record.row_id for record in records if record.key == "k0"]
        assert of_key == [ids[n] for n in range(0, 60, 3)]
        assert [r.headers["idempotency-key"] for r in records if r.body == messages[15].body] == ["first"]


async def test_a_discarded_dead_letter_lets_its_key_go_on(
    broker: OutboxBroker, kafka: KafkaBroker, kafka_server: KafkaServer, publishing: Publishing, table: Table
) -> None:
    with kafka_server.topic(1, max_message_bytes=LIMIT) as name:
        broker.forwarder("orders", to=kafka.publisher(name), hold_key=True)
        ids = await publishing.many([Outgoing(b"x" * 30_000, key="k"), Outgoing(b"1", key="k"), Outgoing(b"2")])
        await broker.start()
        topic = KafkaBox(kafka_server, name)
        [record] = await topic.received(1)
        assert record.row_id == ids[2]
        await eventually(lambda: _dead(broker, 1))
        assert await broker.dead_letters.discard() == 1
        records = await topic.received(2)
        assert [record.row_id for record in records] == [ids[2], ids[1]]
        await eventually(table.is_empty)


async def _dead(broker: OutboxBroker, count: int, **selection: Any) -> bool:
    return await broker.dead_letters.count(**selection) == count


async def _raise_the_limit(server: KafkaServer, name: str) -> None:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    admin = AIOKafkaAdminClient(bootstrap_servers=server.bootstrap)
    await admin.start()
    try:
        limit = {"max.message.bytes": "1000000"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=limit)])
    finally:
        await admin.close()

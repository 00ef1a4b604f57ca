"""Partitions: how rows spread, and that record batches keep the order of each key."""

from collections import Counter

from faststream.kafka import KafkaBroker

from faststream_outbox import OutboxBroker, Outgoing
from integration.broker.observing import Table, eventually
from integration.destinations.kafka import KafkaBox
from integration.destinations.received import check_complete
from integration.forwarders.carrying import Publishing
from integration.servers.kafka import KafkaServer


async def test_rows_without_a_key_spread_over_all_partitions(
    broker: OutboxBroker, kafka: KafkaBroker, topic: KafkaBox, publishing: Publishing
) -> None:
    broker.forwarder("orders", to=kafka.publisher(topic.name), lanes=1)
    await broker.start()
    await publishing.many([Outgoing(b"")] * 600)
    counts = Counter(record.place for record in await topic.received(600))
    assert len(counts) == 6
    assert max(counts.values()) < 2 * min(counts.values())


async def test_single_rows_without_a_key_take_turns(
    broker: OutboxBroker, kafka: KafkaBroker, topic: KafkaBox, publishing: Publishing, table: Table
) -> None:
    broker.forwarder("orders", to=kafka.publisher(topic.name), lanes=1)
    await broker.start()
    for number in range(12):
        await publishing.one(number)
        await eventually(table.is_empty)
    counts = Counter(record.place for record in await topic.received(12))
    assert set(counts.values()) == {2}


async def test_nothing_passes_a_poisoned_row_of_its_key_before_it_is_dead(
    broker: OutboxBroker, kafka_server: KafkaServer, publishing: Publishing, table: Table
) -> None:
    # Far more than one record batch; a client that sends the batches of a partition without waiting would go on behind
    # the one that is refused.
    with kafka_server.topic(2, max_message_bytes="60000") as name:
        topic = KafkaBox(kafka_server, name)
        kafka = KafkaBroker(kafka_server.bootstrap, acks="all", logger=None)
        broker.forwarder("orders", to=kafka.publisher(name), batch_size=1000)
        messages = [Outgoing(b"x" * 1000, key=f"key-{number % 7}") for number in range(700)]
        for poison in (13, 350, 351, 352, 699):
            messages[poison] = Outgoing(b"x" * 70_000, key=messages[poison].key)
        ids = await publishing.many(messages)
        await broker.start()
        await eventually(lambda: _all_failed(table), within=15)
        failed = {row.id for row in await table.rows()}
        assert failed == {ids[poison] for poison in (13, 350, 351, 352, 699)}
        assert {row.failure_reason for row in await table.rows()} == {"too_large"}
        records = await topic.received(len(ids) - len(failed))
        assert len(records) == len(ids) - len(failed)
        check_complete(records, set(ids) - failed)


async def _all_failed(table: Table) -> bool:
    return await table.count("failed_at IS NULL") == 0

"""G4: the order of each key, and that nothing else has to wait."""

import asyncio
import random
from collections import Counter

from faststream.kafka import KafkaBroker
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import ConstantRetry, OutboxBroker, Outgoing
from integration.broker.observing import Table, eventually
from integration.servers.kafka import KafkaServer

from .carrying import Publishing, Topic, check_complete, check_order, headers_of, row_id
from .conftest import MakeBroker


async def test_keys_keep_their_order_through_two_brokers_while_rows_are_published(
    make_broker: MakeBroker, kafka_server: KafkaServer, topic: Topic, publishing: Publishing, table: Table
) -> None:
    draw = random.Random(4)
    ids: list[int] = []
    for _ in range(2):
        kafka = KafkaBroker(kafka_server.bootstrap, acks="all", logger=None)
        broker = make_broker()
        broker.forwarder(["orders", "refunds"], to=kafka.publisher(topic.name), lanes=3, batch_size=50)
        await broker.start()
    for number in range(60):
        messages = [Outgoing(b"%d" % number, key=f"key-{draw.randrange(40)}") for _ in range(50)]
        # One queue only for each key: between queues there is no order.
        for queue, parity in (("orders", 0), ("refunds", 1)):
            ids += await publishing.many((m for m in messages if int(m.key[4:]) % 2 == parity), queue=queue)
    await eventually(table.is_empty, within=15)
    records = await topic.records(len(ids))
    assert len(records) == len(ids)
    check_complete(records, ids)
    assert len({record.partition for record in records}) == 6


async def test_a_key_with_2000_rows_keeps_its_order_and_holds_up_no_other(
    make_broker: MakeBroker, kafka: KafkaBroker, topic: Topic, publishing: Publishing, table: Table
) -> None:
    # 400 KiB: several record batches in one hand-over, several hand-overs.
    ids = await publishing.many(Outgoing(b"h" * 1000, key="hot") for _ in range(2000))
    ids += await publishing.many(Outgoing(b"c", key=f"cold-{number}") for number in range(50))
    for _ in range(2):
        broker = make_broker()
        broker.forwarder("orders", to=kafka.publisher(topic.name))
        await broker.start()
    await eventually(table.is_empty, within=15)
    check_complete(await topic.records(len(ids)), ids)


async def test_rows_without_a_key_spread_over_all_partitions(
    broker: OutboxBroker, kafka: KafkaBroker, topic: Topic, publishing: Publishing
) -> None:
    broker.forwarder("orders", to=kafka.publisher(topic.name), lanes=1)
    await broker.start()
    await publishing.many([Outgoing(b"")] * 600)
    counts = Counter(record.partition for record in await topic.records(600))
    assert len(counts) == 6
    assert max(counts.values()) < 2 * min(counts.values())


async def test_single_rows_without_a_key_take_turns(
    broker: OutboxBroker, kafka: KafkaBroker, topic: Topic, publishing: Publishing, table: Table
) -> None:
    broker.forwarder("orders", to=kafka.publisher(topic.name), lanes=1)
    await broker.start()
    for number in range(12):
        await publishing.one(number)
        await eventually(table.is_empty)
    counts = Counter(record.partition for record in await topic.records(12))
    assert set(counts.values()) == {2}


async def test_a_row_that_waits_for_its_retry_holds_back_its_own_key_only(
    broker: OutboxBroker, kafka_server: KafkaServer, topic: Topic, publishing: Publishing, table: Table
) -> None:
    failures = 2

    def partitioner(key: bytes, partitions: list[int], available: list[int]) -> int:
        nonlocal failures
        if key == b"late" and failures:
            failures -= 1
            raise ValueError("no partition for this key yet")
        return partitions[0]

    kafka = KafkaBroker(kafka_server.bootstrap, acks="all", partitioner=partitioner, logger=None)
    retry = ConstantRetry(delay_seconds=0.5)
    broker.forwarder("orders", to=kafka.publisher(topic.name), lanes=1, retry_strategy=retry)
    # All of them in one shard, so that they are handed over together.
    ids = await publishing.many(Outgoing(b"", key=key) for key in ["late", "late", "soon", "late", "soon"])
    await broker.start()
    await eventually(table.is_empty, within=10)
    records = await topic.records(len(ids))
    check_complete(records, ids)
    assert [record.key for record in records] == [b"soon", b"soon", b"late", b"late", b"late"]


async def test_nothing_passes_a_poisoned_row_of_its_key_before_it_is_dead(
    broker: OutboxBroker, kafka_server: KafkaServer, publishing: Publishing, table: Table
) -> None:
    # Far more than one record batch; a client that sends the batches of a partition without waiting would go on behind
    # the one that is refused.
    with kafka_server.topic(2, max_message_bytes="60000") as name:
        topic = Topic(kafka_server.bootstrap, name)
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
        records = await topic.records(len(ids) - len(failed))
        assert len(records) == len(ids) - len(failed)
        check_complete(records, set(ids) - failed)


async def _all_failed(table: Table) -> bool:
    return await table.count("failed_at IS NULL") == 0


async def test_two_processes_keep_order_while_partitions_and_lanes_are_shared(
    *,
    database_url: str,
    outbox_table: SqlTable,
    kafka_server: KafkaServer,
    topic: Topic,
    publishing: Publishing,
    table: Table,
) -> None:
    """Brokers that start and stop under load: places and connections change hands all the time."""
    engine = create_async_engine(database_url)
    ids: list[int] = []

    async def publish() -> None:
        for number in range(40):
            ids.extend(await publishing.many(Outgoing(b"", key=f"key-{(number + k) % 11}") for k in range(25)))

    async def come_and_go() -> None:
        for _ in range(4):
            broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None)
            kafka = KafkaBroker(kafka_server.bootstrap, acks="all", logger=None)
            broker.forwarder("orders", to=kafka.publisher(topic.name), batch_size=20)
            await broker.start()
            seen = len(ids)
            await eventually(lambda seen=seen: len(ids) >= min(seen + 100, 1000))
            await broker.stop()

    await asyncio.gather(publish(), come_and_go(), come_and_go())
    last = OutboxBroker(engine, outbox_table=outbox_table, logger=None)
    last.forwarder("orders", to=KafkaBroker(kafka_server.bootstrap, acks="all", logger=None).publisher(topic.name))
    await last.start()
    await eventually(table.is_empty, within=15)
    await last.stop()
    await engine.dispose()
    records = await topic.records(len(ids))
    assert len(records) == len(ids), "a clean stop repeats nothing"
    check_order(records)
    assert sorted(map(row_id, records)) == sorted(ids)
    assert all(headers_of(record)["outbox-queue"] == "orders" for record in records)

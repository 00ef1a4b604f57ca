"""G8: a stop finishes what is in flight, repeats nothing, and does not wait for ever."""

import asyncio
import time

import pytest
from faststream.kafka import KafkaBroker

from faststream_outbox import Outgoing
from integration.broker.observing import Table, eventually
from integration.faults.proxy import TcpProxy
from integration.servers.kafka import KafkaServer

from .carrying import HAND_OVERS, Publishing, Topic, check_complete, connections_to
from .conftest import MakeBroker

SMALL = 1.0


async def test_stops_under_load_repeat_and_lose_nothing(
    make_broker: MakeBroker, kafka: KafkaBroker, topic: Topic, publishing: Publishing, table: Table
) -> None:
    ids = await publishing.many(Outgoing(b"x" * 300, key=f"key-{n % 50}" if n % 2 else None) for n in range(6000))
    for _ in range(8):
        broker = make_broker()
        broker.forwarder("orders", to=kafka.publisher(topic.name), batch_size=100)
        before = await table.count()
        await broker.start()
        await eventually(lambda before=before: _fewer(table, before))
        await broker.stop()
    assert not await table.is_empty(), "the stops came under load"
    broker = make_broker()
    broker.forwarder("orders", to=kafka.publisher(topic.name))
    await broker.start()
    await eventually(table.is_empty, within=15)
    records = await topic.records(len(ids))
    assert len(records) == len(ids)
    check_complete(records, ids)


async def _fewer(table: Table, before: int) -> bool:
    return await table.count() < before


@pytest.mark.parametrize("grace", [0.0, 0.7])
async def test_a_stop_does_not_wait_longer_than_its_grace_for_a_kafka_that_hangs(
    *,
    grace: float,
    make_broker: MakeBroker,
    proxied_kafka: KafkaBroker,
    kafka_proxy: TcpProxy,
    topic: Topic,
    publishing: Publishing,
    table: Table,
) -> None:
    broker = make_broker(graceful_timeout=grace)
    broker.forwarder("orders", to=proxied_kafka.publisher(topic.name))
    await broker.start()
    await publishing.one(b"it works")
    await eventually(table.is_empty, within=10)
    kafka_proxy.black_hole()
    await publishing.many([Outgoing(b"x" * 100_000, key="k")] * 40)
    await eventually(lambda: _is_being_sent(table))
    began = time.monotonic()
    await broker.stop()
    assert time.monotonic() - began < grace + SMALL
    await _rows_are_free(table, 40)


async def _is_being_sent(table: Table) -> bool:
    return bool(await table.query(HAND_OVERS))


async def _rows_are_free(table: Table, count: int) -> None:
    free = await table.query("SELECT id, attempts_count FROM outbox FOR UPDATE SKIP LOCKED")
    assert len(free) == count
    assert {row.attempts_count for row in free} == {0}


async def test_a_stop_does_not_wait_for_a_connection(
    make_broker: MakeBroker, proxied_kafka: KafkaBroker, kafka_proxy: TcpProxy, topic: Topic, publishing: Publishing
) -> None:
    kafka_proxy.black_hole()
    broker = make_broker(graceful_timeout=30.0)
    broker.forwarder("orders", to=proxied_kafka.publisher(topic.name))
    await publishing.one(b"")
    await broker.start()
    await eventually(lambda: connections_to(kafka_proxy.port))
    began = time.monotonic()
    await broker.stop()
    assert time.monotonic() - began < SMALL


async def test_acknowledged_rows_of_a_hand_over_that_is_cut_off_are_not_sent_again(
    *,
    make_broker: MakeBroker,
    kafka: KafkaBroker,
    kafka_server: KafkaServer,
    topic: Topic,
    publishing: Publishing,
    table: Table,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One partition answers and another hangs: what is known is written, also when the time is over."""
    from faststream_outbox.forwarders.kafka.client import KafkaClient

    produce = KafkaClient.produce
    hanging = asyncio.Event()

    async def hang_in_partition_0(self: KafkaClient, partition: int, batch: bytes) -> None:
        if partition == 0:
            hanging.set()
            await asyncio.Event().wait()
        await produce(self, partition, batch)

    monkeypatch.setattr(KafkaClient, "produce", hang_in_partition_0)
    broker = make_broker(graceful_timeout=0.3)
    broker.forwarder("orders", to=kafka.publisher(topic.name), lanes=1)
    ids = await publishing.many([Outgoing(b"")] * 60)
    await broker.start()
    await asyncio.wait_for(hanging.wait(), 5)
    await broker.stop()
    assert await table.count() == 10
    monkeypatch.undo()
    second = make_broker()
    second.forwarder("orders", to=kafka.publisher(topic.name))
    await second.start()
    await eventually(table.is_empty)
    records = await topic.records(60)
    assert len(records) == 60
    check_complete(records, ids)


async def test_what_the_application_has_opened_stays_open_and_ours_is_closed(
    make_broker: MakeBroker, kafka: KafkaBroker, kafka_server: KafkaServer, topic: Topic, publishing: Publishing
) -> None:
    port = int(kafka_server.bootstrap.rpartition(":")[2])
    await kafka.start()
    publisher = kafka.publisher(topic.name)
    await publisher.publish(b"the application's")
    theirs = len(connections_to(port))
    broker = make_broker()
    broker.forwarder("orders", to=publisher)
    await broker.start()
    await publishing.one(b"ours")
    await topic.records(2)
    assert len(connections_to(port)) > theirs
    await broker.stop()
    await eventually(lambda: len(connections_to(port)) <= theirs)
    await publisher.publish(b"the application's")
    assert len(await topic.records(3)) == 3
    await kafka.stop()


async def test_a_broker_that_nobody_started_is_not_connected_by_us(
    make_broker: MakeBroker, kafka: KafkaBroker, kafka_server: KafkaServer, topic: Topic, publishing: Publishing
) -> None:
    port = int(kafka_server.bootstrap.rpartition(":")[2])
    broker = make_broker()
    broker.forwarder("orders", to=kafka.publisher(topic.name))
    for _ in range(2):  # A broker can be started again.
        await broker.start()
        await publishing.one(b"")
        await eventually(lambda: connections_to(port))
        await broker.stop()
        await eventually(lambda: not connections_to(port))
    assert not kafka.running
    assert len(await topic.records(1)) >= 1

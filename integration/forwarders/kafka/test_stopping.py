"""G8: what some partitions have acknowledged counts, also when others hang."""

import asyncio

import pytest
from faststream.kafka import KafkaBroker

from faststream_outbox import Outgoing
from integration.broker.observing import Table, eventually
from integration.destinations.kafka import KafkaBox
from integration.destinations.received import check_complete
from integration.forwarders.carrying import Publishing
from integration.servers.kafka import KafkaServer

from .conftest import MakeBroker

SMALL = 1.0


async def test_acknowledged_rows_of_a_hand_over_that_is_cut_off_are_not_sent_again(
    *,
    make_broker: MakeBroker,
    kafka: KafkaBroker,
    kafka_server: KafkaServer,
    topic: KafkaBox,
    publishing: Publishing,
    table: Table,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One partition answers and another hangs: what is known is written, also when the time is over."""
    from faststream_outbox.forwarders.kafka.client import KafkaClient

    produce = KafkaClient.produce
    hanging = asyncio.Event()

    async def hang_in_partition_0(self: KafkaClient, topic: str, partition: int, batch: bytes) -> None:
        if partition == 0:
            hanging.set()
            await asyncio.Event().wait()
        await produce(self, topic, partition, batch)

    monkeypatch.setattr(KafkaClient, "produce", hang_in_partition_0)
    broker = make_broker(graceful_timeout=2.0)
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
    records = await topic.received(60)
    assert len(records) == 60
    check_complete(records, ids)

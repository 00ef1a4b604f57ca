"""G5: a topic that is not there is an outage."""

import asyncio
import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from faststream.kafka import KafkaBroker

from faststream_outbox import Outgoing
from faststream_outbox.forwarders.kafka import sending
from integration.broker.observing import LogLines, Table, eventually
from integration.destinations.kafka import KafkaBox
from integration.forwarders.carrying import Publishing, nothing_is_counted
from integration.servers.kafka import KafkaServer
from integration.servers.topics import create_topic, delete_topic

from .conftest import MakeBroker


async def test_a_topic_that_does_not_exist_yet(
    *,
    make_broker: MakeBroker,
    kafka: KafkaBroker,
    kafka_server: KafkaServer,
    publishing: Publishing,
    table: Table,
    log: LogLines,
    aiokafka_log: pytest.LogCaptureFixture,
) -> None:
    name = "not-there-yet"
    broker = make_broker(logger=log)
    broker.forwarder("orders", to=kafka.publisher(name))
    await publishing.many([Outgoing(b"", key="k")] * 10)
    await broker.start()
    [line] = await eventually(lambda: log.at_least(logging.WARNING))
    assert "UNKNOWN_TOPIC_OR_PARTITION" in line
    await asyncio.sleep(1.0)
    await nothing_is_counted(table)
    await create_topic(kafka_server.bootstrap, name, 2)
    try:
        await eventually(table.is_empty, within=10)
        assert len(await KafkaBox(kafka_server, name).received(10)) == 10
    finally:
        await broker.stop()
        await delete_topic(kafka_server.bootstrap, name)
    assert len(log.at_least(logging.WARNING)) == 1
    assert not aiokafka_log.records


async def test_a_clock_that_is_wrong_is_held_against_no_row(
    *,
    monkeypatch: pytest.MonkeyPatch,
    make_broker: MakeBroker,
    kafka: KafkaBroker,
    kafka_server: KafkaServer,
    publishing: Publishing,
    table: Table,
    log: LogLines,
) -> None:
    clock = Clock(ahead=60_000)
    monkeypatch.setattr(sending, "DefaultRecordBatchBuilder", clock.builder)
    broker = make_broker(logger=log)
    with kafka_server.topic(2, message_timestamp_after_max_ms="1000") as name:
        broker.forwarder("orders", to=kafka.publisher(name))
        await publishing.many(Outgoing(b"", key=f"key-{n % 3}") for n in range(10))
        await broker.start()
        [line] = await eventually(lambda: log.at_least(logging.WARNING))
        assert "INVALID_TIMESTAMP" in line
        await nothing_is_counted(table)
        clock.ahead = 0
        await eventually(table.is_empty, within=10)
        assert len(await KafkaBox(kafka_server, name).received(10)) == 10
        await broker.stop()


class Clock:
    """Makes record batches as aiokafka would whose machine has a wrong clock.

    Args:
        ahead: milliseconds.
    """

    def __init__(self, ahead: int) -> None:
        self.ahead = ahead

    def builder(self, **options: Any) -> Any:
        builder = DefaultRecordBatchBuilder(**options)

        def append(offset: int, timestamp: int | None, *rest: Any) -> Any:
            return builder.append(offset, timestamp or int(time.time() * 1000) + self.ahead, *rest)

        return SimpleNamespace(append=append, size=builder.size, build=builder.build)

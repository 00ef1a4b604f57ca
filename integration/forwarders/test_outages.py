"""G5: a destination that is down is no failure of any row."""

import asyncio
import logging
import time
from typing import Any

import psutil
import pytest
from faststream.kafka import KafkaBroker

from faststream_outbox import Outgoing
from integration.broker.observing import LogLines, Table, eventually
from integration.faults.proxy import TcpProxy
from integration.servers.kafka import KafkaServer
from integration.servers.topics import create_topic, delete_topic

from .carrying import Publishing, Topic, check_complete, check_order, connections_to, without_repeats
from .conftest import MakeBroker


async def _nothing_is_counted(table: Table) -> None:
    [counted] = await table.query("SELECT count(*) AS n FROM outbox WHERE attempts_count > 0 OR failed_at IS NOT NULL")
    assert counted.n == 0


async def test_kafka_down_at_start(
    *,
    make_broker: MakeBroker,
    proxied_kafka: KafkaBroker,
    kafka_proxy: TcpProxy,
    topic: Topic,
    publishing: Publishing,
    table: Table,
    log: LogLines,
    aiokafka_log: pytest.LogCaptureFixture,
) -> None:
    kafka_proxy.refuse()
    broker = make_broker(logger=log)
    broker.forwarder("orders", to=proxied_kafka.publisher(topic.name))
    handled = asyncio.Event()

    @broker.subscriber("local")
    async def handle() -> None:
        handled.set()

    began = time.monotonic()
    await broker.start()
    assert time.monotonic() - began < 1.0
    ids = await publishing.many(Outgoing(b"", key=f"key-{n % 5}") for n in range(100))
    await publishing.one(b"", queue="local")
    await asyncio.wait_for(handled.wait(), 5)
    connections = len(psutil.Process().net_connections("tcp"))
    # Long enough for a handful of attempts.
    await asyncio.sleep(2.0)
    assert len(psutil.Process().net_connections("tcp")) <= connections
    await _nothing_is_counted(table)
    assert await table.count() == 100
    assert len(log.at_least(logging.WARNING)) == 1, log.at_least(logging.WARNING)
    assert not aiokafka_log.records
    await kafka_proxy.restore()
    await eventually(table.is_empty, within=10)
    check_complete(await topic.records(100), ids)
    assert len(log.containing("works again")) == 1


async def test_an_outage_while_rows_flow(
    *,
    make_broker: MakeBroker,
    kafka: KafkaBroker,
    proxied_kafka: KafkaBroker,
    kafka_server: KafkaServer,
    kafka_proxy: TcpProxy,
    topic: Topic,
    publishing: Publishing,
    table: Table,
    log: LogLines,
    aiokafka_log: pytest.LogCaptureFixture,
) -> None:
    with kafka_server.topic(2) as other_name:
        other = Topic(kafka_server.bootstrap, other_name)
        broker = make_broker(logger=log)
        broker.forwarder("orders", to=proxied_kafka.publisher(topic.name), batch_size=50)
        broker.forwarder("others", to=kafka.publisher(other.name))
        handled: list[Any] = []

        @broker.subscriber("local")
        async def handle(body: Any) -> None:
            handled.append(body)

        await broker.start()
        ids: list[int] = []
        stop_at = time.monotonic() + 5.0
        cut_at, cut = time.monotonic() + 1.0, False
        meanwhile = 0
        while time.monotonic() < stop_at:
            ids += await publishing.many(Outgoing(b"", key=f"key-{n % 10}") for n in range(20))
            if not cut and time.monotonic() > cut_at:
                kafka_proxy.refuse()
                kafka_proxy.reset()
                cut = True
            if cut and time.monotonic() < cut_at + 2.5:
                meanwhile += 1
                await publishing.one(b"", queue="others")
                await publishing.one(meanwhile, queue="local")
            if cut and time.monotonic() > cut_at + 3.0:
                await kafka_proxy.restore()
            await asyncio.sleep(0.02)
        await eventually(lambda: _none_of(table, "orders"), within=10)
        assert meanwhile > 10
        assert len(await other.records(meanwhile)) == meanwhile
        await eventually(lambda: len(handled) == meanwhile)
        records = await topic.records(len(ids))
        assert len(records) - len(ids) <= 100, "at most what was in flight is repeated"
        check_complete(records, ids)
        check_order(without_repeats(records))
        assert not await table.rows()
        assert len(log.at_least(logging.WARNING)) == 1, log.at_least(logging.WARNING)
        assert len(log.containing("works again")) == 1
        assert not aiokafka_log.records


async def _none_of(table: Table, queue: str) -> bool:
    return await table.count(f"queue = '{queue}'") == 0


async def test_attempts_stay_uncounted_through_an_outage(
    *,
    make_broker: MakeBroker,
    proxied_kafka: KafkaBroker,
    kafka_proxy: TcpProxy,
    topic: Topic,
    publishing: Publishing,
    table: Table,
) -> None:
    broker = make_broker()
    broker.forwarder("orders", to=proxied_kafka.publisher(topic.name))
    await broker.start()
    await publishing.one(b"")
    await eventually(table.is_empty, within=10)
    kafka_proxy.refuse()
    kafka_proxy.reset()
    ids = await publishing.many([Outgoing(b"", key="k")] * 30)
    await asyncio.sleep(1.0)
    await _nothing_is_counted(table)
    # Nothing is claimed while the destination is down: every row can be locked by someone else.
    free = await table.query("SELECT id FROM outbox FOR UPDATE SKIP LOCKED")
    assert len(free) == len(ids)
    await kafka_proxy.restore()
    await eventually(table.is_empty, within=10)


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
    await _nothing_is_counted(table)
    await create_topic(kafka_server.bootstrap, name, 2)
    try:
        await eventually(table.is_empty, within=10)
        assert len(await Topic(kafka_server.bootstrap, name).records(10)) == 10
    finally:
        await broker.stop()
        await delete_topic(kafka_server.bootstrap, name)
    assert len(log.at_least(logging.WARNING)) == 1
    assert not aiokafka_log.records


async def test_a_hand_over_without_an_answer_is_given_up_and_sent_again(
    *,
    make_broker: MakeBroker,
    proxied_kafka: KafkaBroker,
    kafka_proxy: TcpProxy,
    topic: Topic,
    publishing: Publishing,
    table: Table,
    log: LogLines,
) -> None:
    broker = make_broker(logger=log)
    broker.forwarder("orders", to=proxied_kafka.publisher(topic.name), send_timeout=0.5)
    await broker.start()
    await publishing.one(b"it works")
    await eventually(table.is_empty, within=10)
    kafka_proxy.black_hole()
    used = connections_to(kafka_proxy.port)
    ids = await publishing.many(Outgoing(b"", key=f"key-{n % 5}") for n in range(50))
    await eventually(lambda: log.containing("TimeoutError"))
    # What has been given up cannot be sent any more: its connection is gone.
    await eventually(lambda: not used & connections_to(kafka_proxy.port))
    await _nothing_is_counted(table)
    await kafka_proxy.restore()
    await eventually(table.is_empty, within=10)
    records = await topic.records(51)
    check_complete([record for record in records if record.value != b"it works"], ids)

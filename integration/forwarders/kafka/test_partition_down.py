"""A partition whose leader is gone, or silent: its rows wait, and those of the other partitions do not."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
from aiokafka.errors import KafkaError
from aiokafka.partitioner import DefaultPartitioner
from faststream.kafka import KafkaBroker
from sqlalchemy import MetaData
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import OutboxBroker, Outgoing, make_position_table
from faststream_outbox.forwarders.forwarder import OutboxForwarder
from faststream_outbox.forwarders.kafka import silence
from integration.broker.observing import LogLines, Table, eventually
from integration.destinations.kafka import KafkaBox, as_received
from integration.destinations.received import Received, check_complete, check_order
from integration.faults.proxy import TcpProxy
from integration.forwarders.carrying import Publishing
from integration.forwarders.conftest import MakeBroker
from integration.servers.kafka import EmbeddedKafka, SecondKafka
from integration.servers.missing import missing
from integration.servers.process import LOOPBACK, ServerUnavailable
from integration.servers.topics import create_topic_on, delete_topic, led_partitions

NODES = (1, 2, 1, 1)
"""The node that has each partition."""
DEAD = 1
BATCH = 10
SHARDS = 16


def keys_of(partition: int, count: int) -> list[str]:
    """Keys of which all rows go to a partition."""
    partitions, choose = [*range(len(NODES))], DefaultPartitioner()
    names = (f"key-{number}" for number in range(100 * count))
    return [name for name in names if choose(name.encode(), partitions, partitions) == partition][:count]


@pytest.fixture(scope="module")
def first_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    try:
        server = EmbeddedKafka(tmp_path_factory.mktemp("first"), {})
    except ServerUnavailable as unavailable:
        missing(str(unavailable))
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
async def second_node(first_node: EmbeddedKafka, tmp_path: Path) -> AsyncIterator[SecondKafka]:
    running = first_node.second_node(tmp_path)
    yield await asyncio.to_thread(running.__enter__)
    await asyncio.to_thread(running.__exit__, None, None, None)


@pytest.fixture
async def topic(first_node: EmbeddedKafka, second_node: SecondKafka) -> AsyncIterator[KafkaBox]:
    await create_topic_on(first_node.bootstrap, "parted", NODES)
    yield KafkaBox(first_node, "parted")
    await delete_topic(first_node.bootstrap, "parted")


@pytest.mark.parametrize("rows_of_a_key", [1, 4])
async def test_a_backlog_of_a_dead_partition_stops_no_other_and_is_sent_in_order_when_it_is_back(
    *,
    rows_of_a_key: int,
    make_broker: MakeBroker,
    second_node: SecondKafka,
    topic: KafkaBox,
    publishing: Publishing,
    table: Table,
    log: LogLines,
) -> None:
    """Each shard has five hand-overs of it in front."""
    second_node.process.kill()
    await eventually(lambda: _is_dead(topic), within=30)
    keys = keys_of(DEAD, 5 * BATCH * SHARDS // rows_of_a_key)
    dead = await publishing.many(Outgoing(b"", key=key) for _ in range(rows_of_a_key) for key in keys)
    alive = [key for partition in (0, 2, 3) for key in keys_of(partition, 20)]
    others = await publishing.many(Outgoing(b"", key=key) for _ in range(2) for key in alive)
    others += await publishing.many([Outgoing(b"")] * 40)
    broker = make_broker(logger=log)
    kafka = KafkaBroker(topic.url, acks="all", logger=None)
    forwarder = broker.forwarder("orders", to=kafka.publisher(topic.name), batch_size=BATCH)
    await broker.start()
    check_complete(await received(topic, len(others)), others)
    status = await forwarder.status()
    assert status.state == "flowing"
    assert [part.name for part in status.parts_down] == [f"{topic.name}[{DEAD}]"]
    assert "partition 1" in (status.last_error or "")
    await eventually(lambda: _is_left(table, len(dead)))
    assert await table.count("attempts_count > 0 OR first_attempt_at IS NOT NULL OR failed_at IS NOT NULL") == 0
    more = await publishing.many(Outgoing(b"", key=key) for key in alive)
    check_complete(await received(topic, len(others) + len(more)), [*others, *more])
    assert not log.containing("works again")

    await asyncio.to_thread(second_node.start)
    await eventually(table.is_empty, within=25)
    records = await received(topic, len(dead) + len(others) + len(more))
    check_complete(records, [*dead, *others, *more])
    check_order(records)
    await eventually(lambda: log.containing("works again"))
    assert len(log.at_least(logging.WARNING)) == 1, log.at_least(logging.WARNING)
    assert not (await forwarder.status()).parts_down


@pytest.fixture
async def position_table(observer_engine: AsyncEngine) -> AsyncIterator[SqlTable]:
    metadata = MetaData()
    table = make_position_table(metadata)
    async with observer_engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    yield table
    async with observer_engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)


async def test_with_exactly_once_a_process_that_has_just_started_sends_to_the_other_partitions(
    *,
    make_broker: MakeBroker,
    second_node: SecondKafka,
    topic: KafkaBox,
    publishing: Publishing,
    table: Table,
    position_table: SqlTable,
) -> None:
    """What became of the last batches to the dead partition is not known to it."""

    def relay() -> tuple[OutboxBroker, OutboxForwarder]:
        broker = make_broker(position_table=position_table)
        kafka = KafkaBroker(topic.url, acks="all", logger=None)
        options = {"batch_size": BATCH, "exactly_once": True}
        return broker, broker.forwarder("orders", to=kafka.publisher(topic.name), **options)

    everywhere = [key for partition in range(len(NODES)) for key in keys_of(partition, 50)]
    before = await publishing.many(Outgoing(b"", key=key) for key in everywhere)
    first, _ = relay()
    await first.start()
    await eventually(table.is_empty, within=30)
    await first.stop()
    second_node.process.kill()
    await eventually(lambda: _is_dead(topic), within=30)
    dead = await publishing.many(Outgoing(b"", key=key) for key in keys_of(DEAD, 3 * BATCH * SHARDS))
    alive = [key for partition in (0, 2, 3) for key in keys_of(partition, 20)]
    others = await publishing.many(Outgoing(b"", key=key) for _ in range(2) for key in alive)
    second, forwarder = relay()
    await second.start()
    await eventually(lambda: _is_left(table, len(dead)), within=30)
    assert [part.name for part in (await forwarder.status()).parts_down] == [f"{topic.name}[{DEAD}]"]

    await asyncio.to_thread(second_node.start)
    await eventually(table.is_empty, within=30)
    records = await received(topic, len(before) + len(dead) + len(others))
    check_complete(records, [*before, *dead, *others])
    check_order(records)
    assert len({record.row_id for record in records}) == len(records), "repeated"
    assert (await forwarder.status()).maybe_repeated == 0


@pytest.fixture
async def proxies(first_node: EmbeddedKafka, second_node: SecondKafka) -> AsyncIterator[Sequence[TcpProxy]]:
    """Clients that start from one of them stay behind both."""
    async with AsyncExitStack() as stack:
        nodes = (first_node, second_node)
        yield [
            await stack.enter_async_context(TcpProxy(LOOPBACK, node.proxied_port, port=node.proxy_port))
            for node in nodes
        ]


@pytest.mark.parametrize("exactly_once", [False, True])
async def test_a_partition_that_answers_nothing_holds_up_no_other_and_is_back_at_once(
    *,
    exactly_once: bool,
    make_broker: MakeBroker,
    topic: KafkaBox,
    proxies: Sequence[TcpProxy],
    publishing: Publishing,
    table: Table,
    position_table: SqlTable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its leader is there, takes each batch, and says nothing."""
    monkeypatch.setattr(silence, "SILENT_SECONDS", 1.5)
    broker = make_broker(position_table=position_table)
    kafka = KafkaBroker(proxies[0].address, acks="all", logger=None)
    forwarder = broker.forwarder("orders", to=kafka.publisher(topic.name), exactly_once=exactly_once)
    alive = [key for partition in (0, 2, 3) for key in keys_of(partition, 20)]
    dead = keys_of(DEAD, 2 * SHARDS)
    ids = await publishing.many(Outgoing(b"", key=key) for key in [*alive, *dead])
    await broker.start()
    await eventually(table.is_empty, within=30)

    proxies[1].black_hole()
    waiting: list[int] = []
    for _ in range(5):
        # Both lanes have rows for it. That lasts less long than the client waits for an answer.
        waiting += await publishing.many(Outgoing(b"", key=key) for key in dead)
        ids += await publishing.many(Outgoing(b"", key=key) for key in alive)
        await eventually(partial(_are_gone, table, ids), within=10)
    status = await forwarder.status()
    assert [part.name for part in status.parts_down] == [f"{topic.name}[{DEAD}]"]
    assert status.state == "flowing"
    assert await table.count(f"id = ANY (ARRAY{waiting})") == len(waiting)

    await proxies[1].restore()
    await eventually(table.is_empty, within=8)
    records = await received(topic, len(ids) + len(waiting))
    check_complete(records, [*ids, *waiting])
    if exactly_once:
        assert len(records) == len(ids) + len(waiting), "repeated"
        assert (await forwarder.status()).maybe_repeated == 0
    # What both lanes had in flight.
    assert len(records) <= len(ids) + 3 * len(waiting)


async def _are_gone(table: Table, ids: Sequence[int]) -> bool:
    return await table.count(f"id = ANY (ARRAY{[*ids]})") == 0


async def received(topic: KafkaBox, expected: int) -> list[Received]:
    return [as_received(record) for record in await topic.records(expected)]


async def _is_dead(topic: KafkaBox) -> bool:
    try:
        return await led_partitions(topic.url, topic.name) == {0, 2, 3}
    except KafkaError:
        # It was asked of the dead server.
        return False


async def _is_left(table: Table, count: int) -> bool:
    return await table.count() == count

"""A row over which Kafka closes the connection, and rows that were only in flight when it broke."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from faststream.kafka import KafkaBroker

from faststream_outbox import Outgoing
from faststream_outbox._values.outcome import Accepted, Poison, Reason
from faststream_outbox.forwarders.suspects import ConnectionBrokenError
from integration.broker.observing import Table, eventually
from integration.destinations.kafka import KafkaBox
from integration.destinations.received import check_complete
from integration.faults.proxy import TcpProxy
from integration.forwarders.carrying import Publishing
from integration.forwarders.parcels import carry, destination, parcel
from integration.servers.kafka import OwnKafka, running_own_kafka
from integration.servers.missing import missing
from integration.servers.process import ServerUnavailable

from .conftest import MakeBroker

REQUEST_BYTES = 200_000
KILLER = b"x" * (REQUEST_BYTES + 50_000)
"""Kafka closes the connection over a request beyond socket.request.max.bytes, without an answer."""


@pytest.fixture(scope="module")
def strict_kafka() -> Iterator[OwnKafka]:
    with ExitStack() as stack:
        try:
            server = stack.enter_context(running_own_kafka({"socket.request.max.bytes": str(REQUEST_BYTES)}))
        except ServerUnavailable as unavailable:
            missing(str(unavailable))
        yield server


async def test_a_row_over_which_kafka_closes_the_connection_is_found_and_no_other_dies(
    strict_kafka: OwnKafka,
) -> None:
    kafka = KafkaBroker(strict_kafka.bootstrap, acks="all", logger=None)
    with strict_kafka.topic(3) as name:
        parcels = [parcel(key=f"key-{n % 7}") for n in range(60)]
        parcels[20] = parcel(key="key-6", payload=KILLER)
        async with destination(kafka.publisher(name)) as to:
            verdicts = await carry(to, parcels)
        poison = verdicts.pop(20)
        assert isinstance(poison, Poison)
        assert poison.reason == Reason.INVALID
        assert isinstance(poison.exception, ConnectionBrokenError)
        assert set(verdicts) == {Accepted()}
        del parcels[20]
        check_complete(await KafkaBox(strict_kafka, name).received(59), [each.row.id for each in parcels])


async def test_such_a_row_is_parked(
    *, make_broker: MakeBroker, strict_kafka: OwnKafka, publishing: Publishing, table: Table
) -> None:
    kafka = KafkaBroker(strict_kafka.bootstrap, acks="all", logger=None)
    with strict_kafka.topic(6) as name:
        broker = make_broker()
        broker.forwarder("orders", to=kafka.publisher(name))
        ids = await publishing.many(Outgoing(KILLER if n == 44 else b"", key=f"key-{n % 9}") for n in range(100))
        await broker.start()
        await eventually(lambda: _all_but_one_are_gone(table), within=20)
        [parked] = await table.rows()
        assert (parked.id, parked.failure_reason) == (ids[44], "invalid")
        assert "ConnectionBrokenError" in parked.last_exception
        check_complete(await KafkaBox(strict_kafka, name).received(99), {*ids} - {parked.id})
        await broker.stop()


async def _all_but_one_are_gone(table: Table) -> bool:
    rows = await table.rows()
    return len(rows) == 1 and rows[0].failed_at is not None


async def _nothing_waits(table: Table) -> bool:
    return await table.count("failed_at IS NULL") == 0


async def test_connections_that_break_again_and_again_poison_nothing(
    *,
    make_broker: MakeBroker,
    proxied_kafka: KafkaBroker,
    kafka_proxy: TcpProxy,
    topic: KafkaBox,
    publishing: Publishing,
    table: Table,
) -> None:
    broker = make_broker()
    broker.forwarder("orders", to=proxied_kafka.publisher(topic.name), batch_size=50)
    await broker.start()
    ids: list[int] = []
    for _ in range(10):
        # Then all get through, so that none can meet a third break.
        for _ in range(2):
            for _ in range(4):
                ids += await publishing.many(Outgoing(b"", key=f"key-{n % 20}") for n in range(100))
            kafka_proxy.reset()
        await eventually(table.is_empty, within=20)
    check_complete(await topic.received(len(ids)), ids)


@pytest.mark.timeout(300)
async def test_a_server_that_is_restarted_under_load_accuses_nobody(
    *, make_broker: MakeBroker, strict_kafka: OwnKafka, publishing: Publishing, table: Table
) -> None:
    kafka = KafkaBroker(strict_kafka.bootstrap, acks="all", logger=None)
    with strict_kafka.topic(3) as name:
        broker = make_broker()
        broker.forwarder("orders", to=kafka.publisher(name), batch_size=20)
        await broker.start()
        ids: list[int] = []
        for is_killed in (False, True):
            for _ in range(4):
                ids += await publishing.many(Outgoing(b"", key=f"key-{n % 20}") for n in range(100))
            strict_kafka.process.kill() if is_killed else await asyncio.to_thread(strict_kafka.stop)
            await asyncio.to_thread(strict_kafka.start)
        await eventually(lambda: _nothing_waits(table), within=60)
        assert await table.is_empty()
        check_complete(await KafkaBox(strict_kafka, name).received(len(ids)), ids)
        await broker.stop()

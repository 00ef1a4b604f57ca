"""G2, G3, G4, G6: a process dies with a hand-over in flight."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable

from faststream.kafka import KafkaBroker

from faststream_outbox import Outgoing
from integration.broker.observing import Table, eventually
from integration.faults.processes import run_python
from integration.faults.proxy import Direction, TcpProxy

from .carrying import HAND_OVERS, Publishing, Topic, check_complete, check_order, headers_of, without_repeats
from .conftest import MakeBroker

TAKEOVER_SECONDS = 2.0
IN_FLIGHT_AT_MOST = 1000
"""Two lanes of 500 rows."""
KILLS = 2


async def test_another_process_finishes_the_rows_of_one_that_was_killed(
    *,
    make_broker: MakeBroker,
    database_url: str,
    kafka: KafkaBroker,
    kafka_proxy: TcpProxy,
    topic: Topic,
    publishing: Publishing,
    table: Table,
) -> None:
    relay = {"DATABASE_URL": database_url, "BOOTSTRAP": kafka_proxy.address, "TOPIC": topic.name}
    async with run_python("-m", "integration.forwarders.relay", env=relay) as child:
        ids = [await publishing.one(b"it works", key="first")]
        await eventually(table.is_empty, within=10)
        # Records still reach Kafka, acknowledgements do not come back: whatever is sent now stays in flight.
        kafka_proxy.black_hole([Direction.TO_CLIENT])
        ids += await publishing.many(Outgoing(b"%d" % n, key=f"key-{n % 40}") for n in range(1000))
        await eventually(lambda: _lanes_at_work(table, 2))
        in_flight = await _at_rest(topic.count)
        survivor = make_broker()
        survivor.forwarder("orders", to=kafka.publisher(topic.name))
        await survivor.start()
        # The survivor is idle again: nothing makes it look more often than it always does.
        held = await _at_rest(table.count)
        await child.kill()
        killed_at = time.monotonic()
        await eventually(table.is_empty, within=10)
        assert time.monotonic() - killed_at < TAKEOVER_SECONDS
    assert 0 < held <= IN_FLIGHT_AT_MOST
    records = await topic.records(len(ids))
    repeats = len(records) - len(without_repeats(records))
    assert repeats == in_flight - 1, "just what was in flight is there twice"
    check_complete(records, ids)


async def _lanes_at_work(table: Table, count: int) -> bool:
    return len(await table.query(HAND_OVERS)) >= count


async def _at_rest(count: Callable[[], Awaitable[int]]) -> int:
    """The count, when it has not changed for a while."""
    last = await count()
    unchanged_since = time.monotonic()
    while time.monotonic() - unchanged_since < 1.5:
        await asyncio.sleep(0.1)
        if (now := await count()) != last:
            last, unchanged_since = now, time.monotonic()
    return last


async def test_relays_that_are_killed_again_and_again_lose_nothing(
    database_url: str, topic: Topic, publishing: Publishing, table: Table
) -> None:
    relay = {"DATABASE_URL": database_url, "BOOTSTRAP": topic.bootstrap, "TOPIC": topic.name}
    ids: list[int] = []

    enough = asyncio.Event()

    async def publish() -> None:
        for number in itertools.count():
            if enough.is_set():
                return
            ids.extend(await publishing.many(Outgoing(b"", key=f"key-{(number + n) % 23}") for n in range(50)))
            await asyncio.sleep(0.02)

    publisher = asyncio.create_task(publish())
    try:
        for _ in range(KILLS):
            async with run_python("-m", "integration.forwarders.relay", env=relay) as child:
                backlog = await table.count()
                await eventually(lambda backlog=backlog: _fewer(table, backlog), within=10)
                await child.kill()
    finally:
        # Not cancelled: a transaction may commit without its ids being heard of.
        enough.set()
        await publisher
    async with run_python("-m", "integration.forwarders.relay", env=relay):
        await eventually(table.is_empty, within=10)
    records = await topic.records(len(ids))
    repeats = len(records) - len(ids)
    assert repeats <= KILLS * IN_FLIGHT_AT_MOST
    check_complete(records, ids)
    check_order(without_repeats(records))
    assert all("idempotency-key" in headers_of(record) for record in records)


async def _fewer(table: Table, backlog: int) -> bool:
    return await table.count() < backlog

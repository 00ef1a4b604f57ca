"""G2, G3, G4, G6: a process dies with a hand-over in flight."""

import asyncio
import itertools
import time

from faststream.rabbit import RabbitBroker

from faststream_outbox import OutboxBroker, Outgoing
from integration.broker.observing import Table, eventually
from integration.faults.processes import run_python
from integration.faults.proxy import Direction, TcpProxy
from integration.forwarders.carrying import Publishing
from integration.forwarders.conftest import MakeBroker
from integration.servers.queues import Mailbox
from integration.servers.rabbitmq import RabbitServer

from .carrying import as_records, check_complete, check_order, without_repeats

TAKEOVER_SECONDS = 2.0
IN_FLIGHT_AT_MOST = 200
"""Two lanes of a hundred rows."""
KILLS = 2
RELAY = "integration.forwarders.rabbit.relay"


async def test_another_process_finishes_the_rows_of_one_that_was_killed(
    *,
    make_broker: MakeBroker,
    database_url: str,
    rabbit: RabbitBroker,
    rabbit_server: RabbitServer,
    rabbit_proxy: TcpProxy,
    mailbox: Mailbox,
    publishing: Publishing,
    table: Table,
) -> None:
    url = rabbit_server.url_through(rabbit_proxy.address)
    relay = {"DATABASE_URL": database_url, "RABBIT_URL": url, "QUEUE": mailbox.name}
    async with run_python("-m", RELAY, env=relay, timeout=30) as child:
        ids = [await publishing.one(b"it works", key="first")]
        await eventually(table.is_empty, within=10)
        # Messages still reach RabbitMQ, confirms do not come back: whatever is sent now stays in flight.
        rabbit_proxy.black_hole([Direction.TO_CLIENT])
        ids += await publishing.many(Outgoing(b"%d" % n, key=f"key-{n % 40}") for n in range(400))
        await eventually(lambda: _lanes_at_work(table, 2))
        survivor = make_broker()
        survivor.forwarder("orders", to=rabbit.publisher(mailbox.name))
        await survivor.start()
        held = await eventually(lambda: _only_held_rows_are_left(table), within=20)
        await child.kill()
        killed_at = time.monotonic()
        await eventually(table.is_empty, within=10)
        assert time.monotonic() - killed_at < TAKEOVER_SECONDS
    assert 0 < held <= IN_FLIGHT_AT_MOST
    records = as_records(await mailbox.messages(len(ids)))
    repeats = len(records) - len(without_repeats(records))
    assert 0 < repeats <= held, "no more than what was in flight is there twice"
    check_complete(records, ids)


async def _lanes_at_work(table: Table, count: int) -> bool:
    locks = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted"
    return len(await table.query(locks)) >= count


async def _only_held_rows_are_left(table: Table) -> int:
    free = await table.query("SELECT id FROM outbox FOR UPDATE SKIP LOCKED")
    return 0 if free else await table.count()


async def test_relays_that_are_killed_again_and_again_lose_nothing(
    *,
    broker: OutboxBroker,
    database_url: str,
    rabbit: RabbitBroker,
    rabbit_server: RabbitServer,
    mailbox: Mailbox,
    publishing: Publishing,
    table: Table,
) -> None:
    relay = {"DATABASE_URL": database_url, "RABBIT_URL": rabbit_server.url, "QUEUE": mailbox.name}
    ids: list[int] = []

    enough = asyncio.Event()

    async def publish() -> None:
        for number in itertools.count():
            if enough.is_set():
                return
            ids.extend(await publishing.many(Outgoing(b"", key=f"key-{(number + n) % 23}") for n in range(20)))
            await asyncio.sleep(0.05)

    publisher = asyncio.create_task(publish())
    try:
        for _ in range(KILLS):
            async with run_python("-m", RELAY, env=relay, timeout=30) as child:
                sent = len(ids) - await table.count()
                await eventually(lambda sent=sent: _more(table, ids, sent), within=10)
                await child.kill()
    finally:
        # Not cancelled: a transaction may be committed just then, and nobody would know its ids.
        enough.set()
        await publisher
    broker.forwarder("orders", to=rabbit.publisher(mailbox.name))
    await broker.start()
    await eventually(table.is_empty, within=20)
    records = as_records(await mailbox.messages(len(ids)))
    assert len(records) - len(ids) <= KILLS * IN_FLIGHT_AT_MOST
    check_complete(records, ids)
    check_order(without_repeats(records))


async def _more(table: Table, ids: list[int], sent: int) -> bool:
    return len(ids) - await table.count() > sent

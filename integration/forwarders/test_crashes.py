"""G2, G3, G4, G6: a process dies with a hand-over in flight."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace

import pytest

from faststream_outbox import OutboxBroker, Outgoing
from integration.broker.observing import Table, eventually, watched_machine
from integration.destinations.base import Box
from integration.destinations.kinds import SERVERS
from integration.destinations.received import check_complete, check_order, without_repeats
from integration.faults.processes import ChildProcess
from integration.faults.proxy import Direction
from integration.relay import RelayPlan, running_relay

from .carrying import Publishing, keep_publishing, lanes_at_work

BATCH_SIZE = 100
TAKEOVER_SECONDS = 2.0
IN_FLIGHT_AT_MOST = 2 * BATCH_SIZE
"""Of two lanes."""
KILLS = 2

Relay = Callable[[str], AbstractAsyncContextManager[ChildProcess]]


@pytest.fixture
def relay(box: Box, database_url: str) -> Relay:
    """A relay in a process of its own, to the server at a URL."""
    # It shall not give up before it is killed.
    options = {"batch_size": BATCH_SIZE, "send_timeout": 60}
    plan = RelayPlan.to(box, database_url=database_url, publisher_options=box.patient, options=options)
    return lambda url: running_relay(replace(plan, url=url))


@pytest.mark.parametrize("box", SERVERS, indirect=True)
async def test_another_process_finishes_the_rows_of_one_that_was_killed(
    *, box: Box, relay: Relay, broker: OutboxBroker, publishing: Publishing, table: Table
) -> None:
    async with relay(box.proxied_url) as child:
        ids = [await publishing.one(b"it works", key="first")]
        await eventually(table.is_empty, within=15)
        # Messages still get there, answers do not come back: whatever is sent now stays in flight.
        box.proxy.black_hole([Direction.TO_CLIENT])
        # So few that no shard has more than one hand-over takes: the rest of such a shard would be free, and held up.
        ids += await publishing.many(Outgoing(b"%d" % n, key=f"key-{n % 100}") for n in range(500))
        await eventually(lambda: _both_lanes(table), within=10)
        broker.forwarder("orders", to=box.publisher())
        await broker.start()
        await eventually(lambda: _few_are_left(table), within=10)
        # The survivor is idle again: nothing makes it look more often than it always does.
        held = await _at_rest(table.count)
        async with watched_machine() as machine:
            await child.kill()
            killed_at = time.monotonic()
            await eventually(table.is_empty, within=15)
            seconds = time.monotonic() - killed_at
        assert seconds - machine.worst_lag < TAKEOVER_SECONDS, f"{seconds:.2f} s, lag {machine.worst_lag:.2f} s"
    assert 0 < held <= IN_FLIGHT_AT_MOST
    received = await box.received(len(ids))
    repeats = len(received) - len(without_repeats(received))
    assert (repeats == 0) == box.drops_repeats
    assert repeats <= held, "no more than what was in flight is there twice"
    check_complete(received, ids)


async def _both_lanes(table: Table) -> bool:
    return await lanes_at_work(table) >= 2


async def _few_are_left(table: Table) -> bool:
    return await table.count() <= IN_FLIGHT_AT_MOST


async def _at_rest(count: Callable[[], Awaitable[int]]) -> int:
    """The count, when it has not changed for a while."""
    last = await count()
    unchanged_since = time.monotonic()
    while time.monotonic() - unchanged_since < 1.5:
        await asyncio.sleep(0.1)
        if (now := await count()) != last:
            last, unchanged_since = now, time.monotonic()
    return last


@pytest.mark.parametrize("box", SERVERS, indirect=True)
async def test_relays_that_are_killed_again_and_again_lose_nothing(
    box: Box, relay: Relay, broker: OutboxBroker, publishing: Publishing, table: Table
) -> None:
    ids: list[int] = []
    enough = asyncio.Event()

    publisher = asyncio.create_task(keep_publishing(publishing, table, ids, enough))
    try:
        async with AsyncExitStack() as stack:
            # Started together, so that one takes over from the other.
            relays = await asyncio.gather(*(stack.enter_async_context(relay(box.url)) for _ in range(KILLS)))
            for child in relays:
                sent = len(ids) - await table.count()
                await eventually(lambda sent=sent: _more_than(sent, ids, table), within=15)
                await child.kill()
    finally:
        enough.set()
        await publisher
    broker.forwarder("orders", to=box.publisher())
    await broker.start()
    await eventually(table.is_empty, within=30)
    received = await box.received(len(ids))
    assert len(received) - len(ids) <= KILLS * IN_FLIGHT_AT_MOST
    check_complete(received, ids)
    check_order(without_repeats(received))


async def _more_than(sent: int, ids: list[int], table: Table) -> bool:
    return len(ids) - await table.count() > sent

"""G8: a stop finishes what is in flight, repeats nothing, and does not wait for ever."""

import time
from contextlib import AsyncExitStack
from typing import Any

import pytest

from faststream_outbox import Outgoing
from faststream_outbox.forwarders.any_broker import link, nats
from integration.broker.observing import Table, eventually
from integration.destinations.base import Box
from integration.destinations.kinds import SERVERS
from integration.destinations.received import check_complete

from .carrying import Publishing, connections_to, fewer_than, lanes_at_work
from .conftest import MakeBroker

SMALL = 6.0
"""Some clients may take 3 s to close, and a busy machine longer; what must not be waited for takes a minute here."""


@pytest.fixture
def patient_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make those clients patient that no option of their broker's does."""
    monkeypatch.setattr(link, "CONNECT_SECONDS", 60.0)
    monkeypatch.setattr(link, "PING_SECONDS", 60.0)
    monkeypatch.setattr(nats, "ACK_SECONDS", 60.0)


@pytest.mark.parametrize("box", SERVERS, indirect=True)
async def test_stops_under_load_repeat_and_lose_nothing(
    box: Box, make_broker: MakeBroker, publishing: Publishing, table: Table
) -> None:
    ids = await publishing.many(Outgoing(b"x" * 300, key=f"key-{n % 50}" if n % 2 else None) for n in range(2500))
    for _ in range(5):
        broker = make_broker()
        broker.forwarder("orders", to=box.publisher(), batch_size=50)
        before = await table.count()
        await broker.start()
        await eventually(lambda before=before: fewer_than(table, before), within=10)
        await broker.stop()
    assert not await table.is_empty(), "the stops came under load"
    broker = make_broker()
    broker.forwarder("orders", to=box.publisher())
    await broker.start()
    await eventually(table.is_empty, within=30)
    received = await box.received(len(ids))
    assert len(received) == len(ids)
    check_complete(received, ids)


@pytest.mark.usefixtures("patient_clients")
@pytest.mark.parametrize("grace", [0.0, 0.7])
@pytest.mark.parametrize("box", SERVERS, indirect=True)
async def test_a_stop_does_not_wait_longer_than_its_grace_for_a_server_that_hangs(
    grace: float, box: Box, make_broker: MakeBroker, publishing: Publishing, table: Table
) -> None:
    broker = make_broker(graceful_timeout=grace)
    broker.forwarder("orders", to=box.proxied_publisher(**box.patient))
    await broker.start()
    await publishing.one(b"it works")
    await eventually(table.is_empty, within=15)
    box.proxy.black_hole()
    await publishing.many([Outgoing(b"x" * 50_000, key="k")] * 40)
    await eventually(lambda: lanes_at_work(table))
    began = time.monotonic()
    await broker.stop()
    assert time.monotonic() - began < grace + SMALL
    free = await table.query("SELECT id, attempts_count FROM outbox FOR UPDATE SKIP LOCKED")
    assert len(free) == 40
    assert {row.attempts_count for row in free} == {0}
    # What was given up does not arrive afterwards.
    box.proxy.reset()
    await box.proxy.restore()
    assert [message.body for message in await box.received(1)] == [b"it works"]


@pytest.mark.usefixtures("patient_clients")
@pytest.mark.parametrize("box", SERVERS, indirect=True)
async def test_a_stop_does_not_wait_for_a_connection(box: Box, make_broker: MakeBroker, publishing: Publishing) -> None:
    box.proxy.black_hole()
    broker = make_broker(graceful_timeout=30.0)
    broker.forwarder("orders", to=box.proxied_publisher(**box.patient))
    await publishing.one(b"")
    await broker.start()
    await eventually(lambda: connections_to(box.proxy.port))
    began = time.monotonic()
    await broker.stop()
    assert time.monotonic() - began < SMALL


@pytest.mark.parametrize("box", SERVERS, indirect=True)
async def test_what_the_application_has_opened_stays_open_and_ours_is_closed(
    box: Box, make_broker: MakeBroker, publishing: Publishing, stack: AsyncExitStack
) -> None:
    publisher = box.publisher()
    theirs = _broker_of(publisher)
    await theirs.start()
    stack.push_async_callback(theirs.stop)
    await publisher.publish(b"the application's")
    before = connections_to(box.port)
    broker = make_broker()
    broker.forwarder("orders", to=publisher)
    await broker.start()
    await publishing.one(b"ours")
    await box.bodies(2)
    assert (connections_to(box.port) <= before) == box.shares_connections
    await broker.stop()
    await eventually(lambda: connections_to(box.port) <= before)
    await publisher.publish(b"the application's")
    assert sorted(await box.bodies(3)) == [b"ours", b"the application's", b"the application's"]


@pytest.mark.parametrize("box", SERVERS, indirect=True)
async def test_of_a_broker_that_nobody_has_started_nothing_stays_open(
    box: Box, make_broker: MakeBroker, publishing: Publishing, table: Table
) -> None:
    publisher = box.publisher()
    broker = make_broker()
    broker.forwarder("orders", to=publisher)
    for _ in range(2):  # A broker can be started again.
        await broker.start()
        await publishing.one(b"")
        await eventually(table.is_empty, within=10)
        assert connections_to(box.port)
        await broker.stop()
        await eventually(lambda: not connections_to(box.port))
    assert not _broker_of(publisher).running
    assert len(await box.received(2)) == 2


def _broker_of(publisher: Any) -> Any:
    return publisher._outer_config.extra_context["broker"]

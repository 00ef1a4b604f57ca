"""G5: a destination that is down is no failure of any row."""

import asyncio
import logging
import time
from typing import Any

import psutil
import pytest

from faststream_outbox import Outgoing
from faststream_outbox.forwarders.any_broker import link
from integration.broker.observing import LogLines, Table, eventually
from integration.destinations.base import Box
from integration.destinations.kinds import SERVERS
from integration.destinations.received import check_complete, check_order, without_repeats

from .carrying import Publishing, connections_to, keep_publishing, nothing_is_counted
from .conftest import MakeBroker

BATCH_SIZE = 50


@pytest.mark.parametrize("box", SERVERS, indirect=True)
async def test_down_at_start(
    box: Box, make_broker: MakeBroker, publishing: Publishing, table: Table, log: LogLines, client_log: Any
) -> None:
    box.proxy.refuse()
    broker = make_broker(logger=log)
    broker.forwarder("orders", to=box.proxied_publisher())
    handled = asyncio.Event()

    @broker.subscriber("local")
    async def handle() -> None:
        handled.set()

    await broker.start()
    ids = await publishing.many(Outgoing(b"", key=f"key-{n % 5}") for n in range(100))
    await publishing.one(b"", queue="local")
    await asyncio.wait_for(handled.wait(), 5)
    await eventually(lambda: log.at_least(logging.ERROR))
    connections = _sockets_to(box.proxy.port)
    # Long enough for a handful of attempts.
    await asyncio.sleep(1.5)
    assert _sockets_to(box.proxy.port) <= connections
    await nothing_is_counted(table)
    # Nothing is taken meanwhile: every row can be locked by someone else.
    assert len(await table.query("SELECT id FROM outbox FOR UPDATE SKIP LOCKED")) == 100
    assert len(log.at_least(logging.WARNING)) == 1, log.at_least(logging.WARNING)
    assert "guest:guest" not in log.at_least(logging.WARNING)[0]
    assert not client_log.records
    await box.proxy.restore()
    await eventually(table.is_empty, within=15)
    check_complete(await box.received(100), ids)
    await eventually(lambda: log.containing("works again"))
    assert len(log.containing("works again")) == 1


def _sockets_to(port: int) -> int:
    connections = psutil.Process().net_connections("tcp")
    return sum(bool(each.raddr) and each.raddr.port == port for each in connections)


@pytest.mark.parametrize("box", SERVERS, indirect=True)
async def test_a_start_does_not_wait_for_a_server_that_hangs(
    box: Box, make_broker: MakeBroker, publishing: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each client would wait for an answer for longer than the start may take."""
    monkeypatch.setattr(link, "CONNECT_SECONDS", 60.0)
    box.proxy.black_hole()
    broker = make_broker()
    broker.forwarder("orders", to=box.proxied_publisher(**box.patient))
    handled = asyncio.Event()

    @broker.subscriber("local")
    async def handle() -> None:
        handled.set()

    began = time.monotonic()
    await broker.start()
    assert time.monotonic() - began < 5.0
    await publishing.one(b"", queue="local")
    await asyncio.wait_for(handled.wait(), 10)
    ids = await publishing.many([Outgoing(b"", key="k")] * 3)
    await eventually(lambda: connections_to(box.proxy.port))
    await box.proxy.restore()
    check_complete(await box.received(3), ids)


@pytest.mark.parametrize("box", SERVERS, indirect=True)
async def test_an_outage_while_rows_flow(
    *, box: Box, make_broker: MakeBroker, publishing: Publishing, table: Table, log: LogLines
) -> None:
    broker = make_broker(logger=log)
    broker.forwarder("orders", to=box.proxied_publisher(**box.impatient), batch_size=BATCH_SIZE, send_timeout=1.0)
    broker.forwarder("others", to=box.publisher())
    handled: list[Any] = []

    @broker.subscriber("local")
    async def handle(body: Any) -> None:
        handled.append(body)

    await broker.start()
    ids: list[int] = []
    is_over = asyncio.Event()

    publisher = asyncio.create_task(keep_publishing(publishing, table, ids, is_over))
    try:
        await eventually(lambda: _got_through(table, ids, 50), within=15)
        box.proxy.refuse()
        box.proxy.reset()
        await eventually(lambda: log.at_least(logging.ERROR), within=10)
        for number in range(10):
            await publishing.one(number, queue="local")
        await eventually(lambda: len(handled) == 10)
        ids += await publishing.many([Outgoing(b"", key="others")] * 10, queue="others")
        await eventually(lambda: _none_of(table, "others"))
        await nothing_is_counted(table)
        await box.proxy.restore()
    finally:
        is_over.set()
        await publisher
    await eventually(table.is_empty, within=20)
    received = await box.received(len(ids))
    assert len(received) - len(ids) <= 2 * BATCH_SIZE, "at most what was in flight is repeated"
    check_complete(received, ids)
    check_order(without_repeats(received))
    assert len(log.at_least(logging.ERROR)) == 1, log.at_least(logging.WARNING)
    await eventually(lambda: log.containing("works again"))
    assert len(log.containing("works again")) == 1


async def _none_of(table: Table, queue: str) -> bool:
    return await table.count(f"queue = '{queue}'") == 0


async def _got_through(table: Table, ids: list[int], count: int) -> bool:
    return len(ids) - await table.count() > count


@pytest.mark.parametrize("box", SERVERS, indirect=True)
async def test_a_hand_over_without_an_answer_is_given_up_and_sent_again(
    *, box: Box, make_broker: MakeBroker, publishing: Publishing, table: Table, log: LogLines
) -> None:
    broker = make_broker(logger=log)
    broker.forwarder("orders", to=box.proxied_publisher(**box.impatient), send_timeout=1.0)
    await broker.start()
    ids = [await publishing.one(b"it works", key="key-0")]
    await eventually(table.is_empty, within=15)
    box.proxy.black_hole()
    used = connections_to(box.proxy.port)
    ids += await publishing.many(Outgoing(b"", key=f"key-{n % 5}") for n in range(50))
    await eventually(lambda: log.at_least(logging.ERROR), within=10)
    # What has been given up cannot be sent any more: its connection is gone.
    await eventually(lambda: not used & connections_to(box.proxy.port))
    await nothing_is_counted(table)
    await box.proxy.restore()
    await eventually(table.is_empty, within=20)
    check_complete(await box.received(51), ids)

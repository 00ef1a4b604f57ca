"""What an operator reads of a forwarder: that it works, that it does not, and how much waits meanwhile."""

import asyncio
import logging
from typing import Any

import pytest

from faststream_outbox import Outgoing
from faststream_outbox._engine import health
from faststream_outbox._engine.relaying import patience
from faststream_outbox._engine.watching import reminder
from integration.broker.observing import LogLines, Table, eventually
from integration.destinations.base import Box

from .carrying import Publishing
from .conftest import MakeBroker

on_redis = pytest.mark.parametrize("box", ["redis-stream"], indirect=True)


@on_redis
async def test_a_forwarder_says_once_that_it_is_connected(
    box: Box, make_broker: MakeBroker, publishing: Publishing, table: Table, log: LogLines
) -> None:
    broker = make_broker(logger=log)
    forwarder = broker.forwarder(["orders", "mails"], to=box.publisher(), name="out")
    await broker.start()
    await publishing.many([Outgoing(b"")] * 10)
    await eventually(table.is_empty)
    [line] = log.containing("out")
    assert line.startswith("forwarder 'out' is connected: it carries 'orders', 'mails' to redis:")
    assert log.records[-1].levelno == logging.INFO
    forwarder.pause()
    forwarder.resume()
    await publishing.one(b"")
    await eventually(table.is_empty)
    assert len(log.containing("is connected")) == 1
    await broker.stop()
    await broker.start()
    await eventually(lambda: len(log.containing("is connected")) == 2)


@on_redis
async def test_an_outage_that_lasts_is_told_again_with_what_waits(
    box: Box, make_broker: MakeBroker, publishing: Publishing, log: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "QUIET_SECONDS", 0.5)
    monkeypatch.setattr(reminder, "TICK_SECONDS", 0.01)
    box.proxy.refuse()
    broker = make_broker(logger=log)
    forwarder = broker.forwarder("orders", to=box.proxied_publisher())
    await publishing.many([Outgoing(b"")] * 12)
    await broker.start()
    await eventually(lambda: len(log.containing("still so after")) == 2, within=10)
    first, second = log.containing("still so after")
    assert first.startswith(f"destination {forwarder.name}: still so after ")
    assert "12 rows wait, the first for " in second
    assert not any(record.exc_info for record in log.records if "still so" in record.getMessage())
    forwarder.pause()
    # Nobody tries now, so nobody knows.
    await asyncio.sleep(2.5)
    assert len(log.containing("still so after")) == 2
    forwarder.resume()
    await eventually(lambda: len(log.containing("still so after")) == 3, within=10)
    assert len(log.at_least(logging.ERROR)) == 1


@on_redis
async def test_a_destination_that_does_not_answer_is_told_of_long_before_it_is_given_up(
    box: Box, make_broker: MakeBroker, publishing: Publishing, table: Table, log: LogLines, monkeypatch: Any
) -> None:
    broker = make_broker(logger=log)
    forwarder = broker.forwarder("orders", to=box.proxied_publisher(**box.patient), send_timeout=20.0)
    await broker.start()
    await publishing.one(b"")
    await eventually(table.is_empty)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.3)
    box.proxy.black_hole()
    await publishing.many([Outgoing(b"")] * 3)
    [line] = await eventually(lambda: log.at_least(logging.WARNING))
    assert line.startswith(
        f"destination {forwarder.name}: no answer on 3 rows for 0.3 s now; it is given up after 20 s"
    )
    await box.proxy.restore()
    await eventually(table.is_empty, within=30)
    assert len(log.containing("no answer on")) == 1

"""Starting and stopping, in any order, with nothing behind the engine."""

import asyncio
import time

import pytest

from faststream_outbox import OutboxBroker


def add_handler(broker: OutboxBroker) -> None:
    @broker.subscriber("a")
    async def handle(body: bytes) -> None: ...


def loops() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("outbox-")}


async def test_a_start_needs_no_database_and_a_stop_leaves_nothing_running(broker: OutboxBroker) -> None:
    add_handler(broker)
    await broker.start()
    assert broker.running
    assert loops()
    began = time.monotonic()
    await broker.stop()
    assert time.monotonic() - began < 2.0
    assert not broker.running
    assert loops() == set()


async def test_starts_and_stops_may_be_repeated(broker: OutboxBroker) -> None:
    add_handler(broker)
    await broker.stop()
    await broker.stop()
    for _ in range(2):
        await broker.start()
        before = loops()
        await broker.start()
        assert loops() == before
        await broker.stop()
        await broker.stop()
        assert loops() == set()


async def test_starts_and_stops_at_the_same_time_wait_for_each_other(broker: OutboxBroker) -> None:
    add_handler(broker)
    await asyncio.gather(broker.start(), broker.stop(), broker.start(), broker.stop())
    assert not broker.running
    assert loops() == set()
    await asyncio.gather(broker.stop(), broker.start())
    assert broker.running
    await asyncio.gather(broker.start(), broker.stop())
    assert loops() == set()


async def test_entering_connects_and_leaving_stops(broker: OutboxBroker) -> None:
    add_handler(broker)
    async with broker:
        assert not broker.running
        await broker.start()
        assert broker.running
    assert not broker.running
    assert loops() == set()


async def test_a_start_that_fails_leaves_nothing_running(broker: OutboxBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    add_handler(broker)
    publisher = broker.publisher("b")

    async def fail() -> None:
        raise OSError("no")

    monkeypatch.setattr(type(publisher), "start", lambda _: fail())
    with pytest.raises(OSError, match="no"):
        await broker.start()
    assert not broker.running
    assert loops() == set()
    monkeypatch.undo()
    await broker.start()
    assert broker.running


async def test_a_subscriber_cannot_start_before_its_broker(broker: OutboxBroker) -> None:
    add_handler(broker)
    await broker.connect()
    with pytest.raises(RuntimeError, match="the broker is not started"):
        await broker.subscribers[0].start()


async def test_a_cancelled_stop_still_ends_everything(broker: OutboxBroker) -> None:
    add_handler(broker)
    await broker.start()
    stopping = asyncio.create_task(broker.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.wait([stopping])
    await broker.stop()
    assert not broker.running
    assert loops() == set()


async def test_ping_of_a_database_that_is_not_there_is_false(broker: OutboxBroker) -> None:
    assert not await broker.ping(timeout=2)
    assert not await broker.ping()

"""A forwarder as its application sees it: pause, resume, status."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from faststream.kafka import KafkaBroker, TestKafkaBroker
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import (
    ConfigError,
    Forward,
    ForwarderState,
    ForwarderStatus,
    NoRetry,
    OutboxBroker,
    OutboxForwarder,
    OutboxMessage,
    TestOutboxBroker,
    make_outbox_table,
)
from faststream_outbox._engine.runtime import Runtime
from faststream_outbox._store.memory.handing_over import MemoryHandOver
from faststream_outbox._values.outcome import Settlement, Unwritten
from faststream_outbox.forwarders.forwarder import SETTLE_SECONDS

# No transaction is needed where nothing is written to a database.
NO_SESSION: Any = None


@pytest.fixture
def broker() -> OutboxBroker:
    """There is no database behind it."""
    engine = create_async_engine("postgresql+asyncpg://database.invalid/shop")
    return OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), logger=None)


@pytest.fixture
def kafka() -> KafkaBroker:
    return KafkaBroker(acks="all", logger=None)


@pytest.fixture
def arrived(kafka: KafkaBroker) -> list[str]:
    bodies: list[str] = []

    @kafka.subscriber("orders.v1")
    async def arrive(body: str) -> None:
        if body == "unwelcome":
            raise ValueError(body)
        bodies.append(body)

    return bodies


@pytest.fixture
def make(broker: OutboxBroker, kafka: KafkaBroker) -> Callable[..., OutboxForwarder]:
    def make(**options: Any) -> OutboxForwarder:
        return broker.forwarder("orders", to=kafka.publisher("orders.v1"), **options)

    return make


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def state_is(forwarder: OutboxForwarder, state: str) -> ForwarderStatus:
    async with asyncio.timeout(5):
        while (status := await forwarder.status()).state != state:
            await asyncio.sleep(0.001)
    return status


async def test_before_the_start_little_is_known(make: Callable[..., OutboxForwarder]) -> None:
    forwarder = make(name="to-kafka")
    assert await forwarder.status() == ForwarderStatus(
        name="to-kafka",
        state=ForwarderState.STOPPED,
        lag_rows=None,
        lag_seconds=None,
        last_error=None,
        parts_down=(),
        sent=0,
        refused=0,
        dead=0,
        dropped=0,
    )


async def test_from_the_start_to_the_stop(
    broker: OutboxBroker, kafka: KafkaBroker, make: Callable[..., OutboxForwarder], arrived: list[str]
) -> None:
    def transform(message: OutboxMessage) -> Forward | None:
        if message.body == b"bad":
            raise ValueError("bad")
        return None if message.body == b"secret" else Forward()

    forwarder = make(transform=transform, retry_strategy=NoRetry())
    async with TestOutboxBroker(broker, run_loops=True):
        status = await state_is(forwarder, "connecting")
        assert (status.lag_rows, status.lag_seconds) == (0, 0.0)
        for body in ("tea", "secret", "bad"):
            await broker.publish(body, queue="orders", session=NO_SESSION)
        await until(lambda: forwarder._team is not None and forwarder._team.breaker.last_error)
        status = await forwarder.status()
        assert status.lag_rows == 3
        assert status.lag_seconds is not None
        assert 0.0 <= status.lag_seconds < 5.0
        assert status.last_error == "ConnectionError: the test does not run the destination's broker"
        async with TestKafkaBroker(kafka):
            status = await state_is(forwarder, "flowing")
            await until(lambda: arrived == ["tea"])
            async with asyncio.timeout(5):
                # The other lane connects again a moment later.
                while (status := await forwarder.status()).dead == 0 or status.last_error is not None:
                    await asyncio.sleep(0.001)
            assert status == ForwarderStatus(
                name="kafka:orders.v1",
                state=ForwarderState.FLOWING,
                lag_rows=0,
                lag_seconds=0.0,
                last_error=None,
                parts_down=(),
                sent=1,
                refused=1,
                dead=1,
                dropped=1,
            )
    assert (await forwarder.status()).state == "stopped"


async def test_an_outage_can_be_seen(
    broker: OutboxBroker, kafka: KafkaBroker, make: Callable[..., OutboxForwarder], arrived: list[str]
) -> None:
    forwarder = make()
    async with TestOutboxBroker(broker, run_loops=True), AsyncExitStack() as stack:
        await stack.enter_async_context(TestKafkaBroker(kafka))
        await state_is(forwarder, "flowing")
        await broker.publish("unwelcome", queue="orders", session=NO_SESSION)
        status = await state_is(forwarder, "down")
        assert status.lag_rows == 1
        assert status.last_error is not None
        assert "unwelcome" in status.last_error


async def test_what_the_database_refuses_can_be_seen(
    broker: OutboxBroker,
    kafka: KafkaBroker,
    make: Callable[..., OutboxForwarder],
    arrived: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(self: MemoryHandOver, settlements: Sequence[Settlement], moves: object) -> Sequence[Unwritten]:
        return [Unwritten(settlement, PermissionError("permission denied")) for settlement in settlements]

    monkeypatch.setattr(MemoryHandOver, "settle", refuse)
    forwarder = make()
    assert (await forwarder.status()).set_aside == 0
    async with TestOutboxBroker(broker, run_loops=True), TestKafkaBroker(kafka):
        await state_is(forwarder, "flowing")
        for body in ("tea", "milk"):
            await broker.publish(body, queue="orders", session=NO_SESSION)
        async with asyncio.timeout(5):
            while (status := await forwarder.status()).set_aside < 2:
                await asyncio.sleep(0.001)
        assert sorted(arrived) == ["milk", "tea"]
        assert status.set_aside_error == "PermissionError: permission denied"
        assert status.last_error is None, "the destination is well"
        assert status.sent == 0


async def test_a_stop_says_which_forwarder_gives_up_how_many_outcomes(
    kafka: KafkaBroker, arrived: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(self: MemoryHandOver, settlements: Sequence[Settlement], moves: object) -> Sequence[Unwritten]:
        return [Unwritten(settlement, PermissionError("permission denied")) for settlement in settlements]

    monkeypatch.setattr(MemoryHandOver, "settle", refuse)
    engine = create_async_engine("postgresql+asyncpg://database.invalid/shop")
    broker = OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), logger=logging.getLogger("relay"))
    forwarder = broker.forwarder("orders", to=kafka.publisher("orders.v1"), name="to-kafka")
    async with TestOutboxBroker(broker, run_loops=True), TestKafkaBroker(kafka):
        await state_is(forwarder, "flowing")
        for body in ("tea", "milk"):
            await broker.publish(body, queue="orders", session=NO_SESSION)
        await until(lambda: forwarder.set_aside == 2)
    [line] = [record.getMessage() for record in caplog.records if "gives up" in record.getMessage()]
    assert "forwarder to-kafka: it has stopped, and gives up 2 outcomes" in line


@pytest.mark.parametrize("run_loops", [False, True])
async def test_a_paused_forwarder_leaves_rows_where_they_are(
    broker: OutboxBroker,
    kafka: KafkaBroker,
    make: Callable[..., OutboxForwarder],
    arrived: list[str],
    run_loops: bool,
) -> None:
    forwarder = make()
    forwarder.pause()
    forwarder.pause()
    assert forwarder.is_paused
    tester = TestOutboxBroker(broker, run_loops=run_loops)
    async with tester, AsyncExitStack() as stack:
        await stack.enter_async_context(TestKafkaBroker(kafka))
        await broker.publish("tea", queue="orders", session=NO_SESSION)
        if run_loops:
            assert (await state_is(forwarder, "paused")).lag_rows == 1
            await asyncio.sleep(0.02)
        assert arrived == []
        assert len(tester.store.rows) == 1
        forwarder.resume()
        assert not forwarder.is_paused
        if not run_loops:
            await tester.deliver_all()
        await until(lambda: arrived == ["tea"])


def test_there_may_be_as_many_lanes_as_shards_of_all_queues(broker: OutboxBroker, kafka: KafkaBroker) -> None:
    to = kafka.publisher("orders.v1")
    broker.forwarder(["orders", "mails"], to=to, lanes=32)
    with pytest.raises(ConfigError, match="lanes: must be an integer from 1 to 32"):
        broker.forwarder(["bills", "clicks"], to=to, lanes=33)


async def test_a_lane_waits_longer_than_its_destination_which_then_still_tells_what_it_knows(
    make: Callable[..., OutboxForwarder], broker: OutboxBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    real = Runtime.lane

    def lane(self: Runtime, *args: Any, **options: Any) -> Any:
        given.append(options["send_timeout"])
        return real(self, *args, **options)

    monkeypatch.setattr(Runtime, "lane", lane)
    make(send_timeout=7.0, lanes=1)
    async with TestOutboxBroker(broker, run_loops=True):
        assert given == [7.0 + SETTLE_SECONDS]

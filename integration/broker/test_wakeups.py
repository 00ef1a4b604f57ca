"""How soon a message is handled: wake-ups by NOTIFY, timers to the moment, and polling where there is no LISTEN."""

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated

import pytest
from faststream import Depends
from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from faststream_outbox import ConstantRetry, OutboxBroker, OutboxResponse

from .conftest import MakeBroker
from .observing import Inbox, Table, Traffic, eventually

FAR = 10.0


async def test_g13_with_listen_a_committed_row_is_handled_within_milliseconds(
    broker: OutboxBroker, session: AsyncSession, inbox: Inbox
) -> None:
    """Polls are 10 s apart, so each of these is a wake-up; pauses let the subscriber fall asleep in between."""

    @broker.subscriber("orders", min_fetch_interval=FAR, max_fetch_interval=FAR)
    async def handle(body: int) -> None:
        inbox.add(body)

    await broker.start()
    committed = []
    for number in range(25):
        await asyncio.sleep(0.1)
        await broker.publish(number, queue="orders", session=session)
        await session.commit()
        committed.append(time.monotonic())
        await inbox.wait_for(number + 1)
    latencies = sorted(1000 * (at - before) for at, before in zip(inbox.times, committed, strict=True))
    median, slowest = statistics.median(latencies), latencies[-1]
    print(f"wake-up: p50 {median:.1f} ms, max {slowest:.1f} ms after the commit")
    assert median < 500


async def test_timers_fire_when_they_are_due_though_polls_are_far_apart(
    broker: OutboxBroker, session: AsyncSession, inbox: Inbox, table: Table
) -> None:
    @broker.subscriber("orders", min_fetch_interval=FAR, max_fetch_interval=FAR)
    async def handle(body: str) -> None:
        inbox.add(body)

    await broker.start()
    # Not in the order in which they are due, by both ways of saying when, and with pauses in which nothing is known.
    now = time.monotonic()
    wall = datetime.now(UTC)
    await broker.publish("c", queue="orders", session=session, activate_in=timedelta(seconds=1.6), timer_id="c")
    await broker.publish("a", queue="orders", session=session, activate_at=wall + timedelta(seconds=0.4))
    await session.commit()
    await inbox.wait_for(1)
    await broker.publish("b", queue="orders", session=session, activate_in=timedelta(seconds=0.5))
    due_b = time.monotonic() + 0.5
    await session.commit()
    await inbox.wait_for(3)
    assert inbox.bodies == ["a", "b", "c"]
    due = [now + 0.4, due_b, now + 1.6]
    late = [1000 * (at - moment) for at, moment in zip(inbox.times, due, strict=True)]
    print("timers: " + ", ".join(f"{each:.0f}" for each in late) + " ms after they were due")
    # A few milliseconds; what waited for the next poll would be late by seconds more, however busy the machine is.
    assert all(-20 < each < 3000 for each in late), late
    await eventually(table.is_empty)


async def test_timers_that_were_there_before_the_start_fire_when_they_are_due(
    broker: OutboxBroker, session: AsyncSession, inbox: Inbox
) -> None:
    @broker.subscriber("orders", min_fetch_interval=FAR, max_fetch_interval=FAR)
    async def handle(body: str) -> None:
        inbox.add(body)

    due = time.monotonic() + 0.8
    await broker.publish("x", queue="orders", session=session, activate_in=timedelta(seconds=0.8))
    await session.commit()
    await broker.start()
    await inbox.wait_for(1)
    assert -0.02 < inbox.times[0] - due < 3


async def test_a_cancelled_timer_does_not_fire(
    broker: OutboxBroker, session: AsyncSession, inbox: Inbox, table: Table
) -> None:
    @broker.subscriber("orders")
    async def handle(body: str) -> None:
        inbox.add(body)

    await broker.start()
    await broker.publish("no", queue="orders", session=session, activate_in=timedelta(seconds=0.3), timer_id="t")
    await broker.publish("yes", queue="orders", session=session, activate_in=timedelta(seconds=0.6))
    await session.commit()
    assert await broker.cancel_timer(queue="orders", timer_id="t", session=session)
    await session.commit()
    assert await inbox.wait_for(1) == ["yes"]
    assert await table.count("timer_id = 't'") == 0


WITHOUT_WAKE_UPS = [{"listen": False}, {"notify": False}, {"listen": False, "notify": False}]


@pytest.mark.parametrize("options", WITHOUT_WAKE_UPS)
async def test_g13_in_one_process_the_commit_wakes_the_handler(
    make_broker: MakeBroker,
    session: AsyncSession,
    session_factory: async_sessionmaker[AsyncSession],
    database_url: str,
    inbox: Inbox,
    options: dict[str, bool],
) -> None:
    """Polls are 10 s apart; a message goes through all ways of publishing, and from thread to thread."""
    broker = make_broker(**options)
    far_apart = {"min_fetch_interval": FAR, "max_fetch_interval": FAR}

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with session_factory.begin() as own:
            yield own

    @broker.subscriber("batches", **far_apart)
    async def respond(body: str, own: Annotated[AsyncSession, Depends(get_session)]) -> OutboxResponse:
        return OutboxResponse(f"{body}, response", queue="responses", session=own)

    @broker.subscriber("responses", **far_apart)
    @broker.publisher("end")
    async def go_on(body: str) -> str:
        return f"{body}, returned"

    @broker.subscriber("end", **far_apart)
    async def end(body: str) -> None:
        inbox.add(body)

    def publish_in_a_thread() -> None:
        engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
        with Session(engine) as plain, plain.begin():
            broker.publish_sync("thread", queue="end", session=plain)
        engine.dispose()

    await broker.start()
    # Let all of them look once and fall asleep.
    await asyncio.sleep(0.5)
    await asyncio.to_thread(publish_in_a_thread)
    assert await inbox.wait_for(1, within=2) == ["thread"]
    await broker.publish("session", queue="end", session=session)
    await session.commit()
    assert await inbox.wait_for(2, within=2) == ["thread", "session"]
    await broker.publish_batch("batch", queue="batches", session=session)
    await session.commit()
    assert await inbox.wait_for(3, within=2) == ["thread", "session", "batch, response, returned"]


async def test_with_listen_a_session_is_left_alone(broker: OutboxBroker, session: AsyncSession, inbox: Inbox) -> None:
    """A look for the commit and another for its notification would be one too many."""

    @broker.subscriber("orders")
    async def handle(body: int) -> None:
        inbox.add(body)

    await broker.start()
    for number in itertools.count(1):
        await broker.publish(number, queue="orders", session=session)
        noted = dict(session.info)
        await session.commit()
        await inbox.wait_for(number)
        if not noted:
            break
    assert number < 5


@pytest.mark.parametrize("options", WITHOUT_WAKE_UPS)
async def test_g13_polling_serves_where_there_are_no_wake_ups(
    make_broker: MakeBroker, session: AsyncSession, inbox: Inbox, table: Table, options: dict[str, bool]
) -> None:
    broker = make_broker(**options)

    @broker.subscriber(
        "orders",
        min_fetch_interval=0.1,
        max_fetch_interval=0.2,
        retry_strategy=ConstantRetry(delay_seconds=0.1),
        lease_ttl_seconds=1.5,
    )
    async def handle(body: int) -> None:
        inbox.add(body)
        # Longer than the lease.
        await asyncio.sleep(1.8)
        if len(inbox.bodies) == 1:
            raise ValueError("once")

    await broker.start()
    await asyncio.sleep(0.5)
    await broker.publish(1, queue="orders", session=session)
    await session.commit()
    committed = time.monotonic()
    await inbox.wait_for(2, within=10)
    assert inbox.times[0] - committed < 3
    await eventually(table.is_empty)
    assert inbox.bodies == [1, 1]


async def test_idle_polling_is_quiet(broker: OutboxBroker, session: AsyncSession, traffic: Traffic) -> None:
    """Four subscribers that have nothing to do send a few statements a second together, all upkeep included."""
    for number in range(4):

        @broker.subscriber(f"q{number}", min_fetch_interval=1.0)
        async def handle(body: int) -> None: ...

    await broker.start()
    await asyncio.sleep(0.5)
    before, began = len(traffic.statements), time.monotonic()
    await asyncio.sleep(2.0)
    sent = len(traffic.statements) - before
    # Longer than it was asked for, on a busy machine.
    rate = sent / (time.monotonic() - began)
    print(f"idle: {rate:.1f} statements/s for 4 subscribers")
    assert rate <= 15

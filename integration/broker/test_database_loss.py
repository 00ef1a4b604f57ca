"""G9: PostgreSQL goes away and comes back; nothing is lost, nothing spins, and the log stays readable."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from faststream_outbox import ConstantRetry, OutboxBroker
from integration.faults.proxy import TcpProxy

from .conftest import MakeBroker
from .observing import Inbox, LogLines, Table, Traffic, eventually

# All connections of a test's database but those that look on.
OTHERS = "datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'observer'"


# Fixtures that are asked for first are torn down last: tests ask for the network before the brokers on it.
@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[TcpProxy]:
    url = make_url(database_url)
    assert url.host
    async with TcpProxy(url.host, url.port or 5432) as proxy:
        yield proxy


@pytest.fixture
async def proxied_engine(database_url: str, proxy: TcpProxy) -> AsyncIterator[AsyncEngine]:
    url = make_url(database_url).set(host=proxy.host, port=proxy.port)
    # No `pool_pre_ping`: nothing of ours may need it.
    engine = create_async_engine(url, connect_args={"timeout": 5})
    yield engine
    await engine.dispose()


@pytest.fixture
async def published(observer_engine: AsyncEngine, broker: OutboxBroker) -> AsyncIterator[list[int]]:
    """Numbers that were committed to the queue "orders", one after the other, until the test ends."""
    numbers: list[int] = []
    factory = async_sessionmaker(observer_engine)

    async def publish() -> None:
        while True:
            async with factory() as session, session.begin():
                await broker.publish(len(numbers), queue="orders", session=session)
            numbers.append(len(numbers))
            await asyncio.sleep(0.01)

    task = asyncio.create_task(publish())
    yield numbers
    task.cancel()
    await asyncio.wait([task])


def add_handler(broker: OutboxBroker, inbox: Inbox) -> None:
    # When the connection breaks between a claim and its answer, nobody knows of the rows until their lease runs out.
    @broker.subscriber("orders", max_workers=4, lease_ttl_seconds=3.0, retry_strategy=ConstantRetry(delay_seconds=0.1))
    async def handle(body: int) -> None:
        await asyncio.sleep(0.01)
        inbox.add(body)


async def test_g9_all_connections_terminated_under_load(
    make_broker: MakeBroker, engine: AsyncEngine, published: list[int], table: Table, inbox: Inbox
) -> None:
    log = LogLines()
    broker = make_broker(engine, logger=log)
    add_handler(broker, inbox)
    await broker.start()
    for _ in range(4):
        await inbox.wait_for(len(inbox.bodies) + 20)
        killed = await table.query(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OTHERS}")
        assert killed
    seen = len(published)
    resumed = time.monotonic()
    await eventually(lambda: set(range(seen)) <= set(inbox.bodies), within=10)
    print(f"G9: caught up {time.monotonic() - resumed:.2f} s after the last of 4 terminations")
    again = sum(count - 1 for count in inbox.counts.values())
    problems = log.at_least(logging.WARNING)
    print(f"G9: {again} of {len(inbox.counts)} handled again, {len(problems)} lines of warning or worse")
    # What was being written at that moment may have to be repeated; what waits is not.
    assert again <= 4 * 8
    assert len(problems) <= 4 * 4, problems
    await eventually(lambda: _idle(table, published, inbox))
    assert await table.count("attempts_count > 0") == 0, "an outage is not a failure of any message"


async def _idle(table: Table, published: list[int], inbox: Inbox) -> bool:
    return (
        set(published[:-20]) <= set(inbox.bodies) and await table.count("id < (SELECT max(id) - 40 FROM outbox)") == 0
    )


@pytest.mark.parametrize("fault", ["refused", "silent"])
async def test_g9_a_network_that_is_away_for_seconds(
    proxied_engine: AsyncEngine, proxy: TcpProxy, make_broker: MakeBroker, published: list[int], fault: str
) -> None:
    inbox, log = Inbox(), LogLines()
    broker = make_broker(proxied_engine, logger=log)
    add_handler(broker, inbox)
    await broker.start()
    await inbox.wait_for(20)
    traffic = Traffic(proxied_engine)
    try:
        if fault == "refused":
            proxy.refuse()
            proxy.reset()
        else:
            proxy.black_hole()
        handled = len(inbox.bodies)
        await asyncio.sleep(2.5)
        assert len(inbox.bodies) <= handled + 60, "only what was in hand goes on"
        work = (len(traffic.statements), traffic.connects)
    finally:
        traffic.close()
        await proxy.restore()
    seen = len(published)
    restored = time.monotonic()
    await eventually(lambda: set(range(seen)) <= set(inbox.bodies), within=15)
    problems = log.at_least(logging.WARNING)
    print(
        f"G9 {fault}: caught up {time.monotonic() - restored:.2f} s after 2.5 s; meanwhile {work[0]} statements, "
        f"{work[1]} connects, {len(problems)} lines of warning or worse"
    )
    assert work[1] <= 60, "no busy loop"
    assert len(problems) <= 6, problems


async def test_g9_a_broker_starts_while_the_database_is_down(
    proxied_engine: AsyncEngine, proxy: TcpProxy, make_broker: MakeBroker, session: AsyncSession, inbox: Inbox
) -> None:
    log = LogLines()
    broker = make_broker(proxied_engine, logger=log)
    add_handler(broker, inbox)
    proxy.refuse()
    await broker.start()
    assert not await broker.ping(timeout=2)
    await broker.publish(1, queue="orders", session=session)
    await session.commit()
    await asyncio.sleep(1.0)
    problems = log.at_least(logging.WARNING)
    assert 1 <= len(problems) <= 2, problems
    await proxy.restore()
    assert await inbox.wait_for(1, within=6) == [1]
    assert await broker.ping(timeout=2)
    await eventually(lambda: log.containing("works again"))


async def test_g9_a_start_does_not_wait_for_a_database_that_hangs(
    database_url: str, proxy: TcpProxy, make_broker: MakeBroker, session: AsyncSession, inbox: Inbox
) -> None:
    url = make_url(database_url).set(host=proxy.host, port=proxy.port)
    patient = create_async_engine(url, connect_args={"timeout": 60})
    broker = make_broker(patient)
    add_handler(broker, inbox)
    proxy.black_hole()
    began = time.monotonic()
    await broker.start()
    assert time.monotonic() - began < 5.0
    await broker.publish(1, queue="orders", session=session)
    await session.commit()
    await proxy.restore()
    assert await inbox.wait_for(1, within=15) == [1]
    await broker.stop()
    await patient.dispose()


async def test_g9_a_broker_stops_in_time_while_the_database_is_down(
    proxied_engine: AsyncEngine, proxy: TcpProxy, make_broker: MakeBroker, session: AsyncSession, table: Table
) -> None:
    """The outcome cannot be written, so the row stays leased to a process that is gone, and others take it over."""
    inbox = Inbox()
    broker = make_broker(proxied_engine, graceful_timeout=1.0)
    add_handler(broker, inbox)
    await broker.start()
    proxy_is_away = asyncio.Event()

    @broker.subscriber("cut off")
    async def handle(body: int) -> None:
        inbox.add(body)
        await proxy_is_away.wait()

    await handle._subscribers[0].start()
    await broker.publish(7, queue="cut off", session=session)
    await session.commit()
    await inbox.wait_for(1)
    proxy.refuse()
    proxy.reset()
    proxy_is_away.set()
    began = time.monotonic()
    await broker.stop()
    seconds = time.monotonic() - began
    print(f"G9: stopped in {seconds:.2f} s while the database was down, graceful_timeout 1 s")
    assert seconds < 4.0
    (row,) = await table.rows()
    assert (row.attempts_count, row.failed_at) == (0, None)

    other = make_broker()

    @other.subscriber("cut off")
    async def take_over(body: int) -> None:
        inbox.add(body)

    await other.start()
    await inbox.wait_for(2)
    await eventually(table.is_empty)

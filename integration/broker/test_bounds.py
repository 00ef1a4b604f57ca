"""G12: connections stay few whatever the load."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from faststream.redis import RedisBroker
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

from .conftest import MakeBroker
from .observing import Inbox, LogLines, Table, eventually

SUBSCRIBERS = 5
WORKERS = 8


@pytest.fixture
async def named_engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """Its connections can be told from others, and more of them could be opened than should be."""
    url = make_url(database_url)
    settings = {"server_settings": {"application_name": "under test"}}
    engine = create_async_engine(url, connect_args=settings, pool_size=50)
    yield engine
    await engine.dispose()


async def test_g12_two_connections_and_one_for_each_claim_in_progress(
    named_engine: AsyncEngine, make_broker: MakeBroker, session: AsyncSession, table: Table, inbox: Inbox
) -> None:
    # The fixtures are in this order so that the broker stops before its engine is disposed of.
    broker = make_broker(named_engine)
    busy = most_busy = 0
    for number in range(SUBSCRIBERS):

        @broker.subscriber(f"q{number}", max_workers=WORKERS, lease_ttl_seconds=5.0)
        async def handle(body: int) -> None:
            nonlocal busy, most_busy
            busy += 1
            most_busy = max(most_busy, busy)
            await asyncio.sleep(0.05)
            busy -= 1
            inbox.add(body)

        await broker.publish_batch(*range(250), queue=f"q{number}", session=session)
    await session.commit()
    await broker.start()
    counts: list[int] = []

    async def look() -> bool:
        counts.append(await table.count("application_name = 'under test'", "pg_stat_activity"))
        return len(inbox.bodies) == SUBSCRIBERS * 250

    await eventually(look, within=20)
    print(f"G12: {max(counts)} connections at most in {len(counts)} looks, {most_busy} handlers at a time")
    assert most_busy > SUBSCRIBERS, "the load was there"
    assert max(counts) <= 2 + SUBSCRIBERS
    assert named_engine.pool.checkedout() <= 1 + SUBSCRIBERS
    assert (
        await table.count("state = 'idle in transaction' AND application_name = 'under test'", "pg_stat_activity") == 0
    )


async def test_g12_a_pool_of_one_connection_is_enough(
    make_broker: MakeBroker, database_url: str, session: AsyncSession, table: Table, inbox: Inbox
) -> None:
    """Those to listen and for leases are beside it, so one without overflow serves all subscribers in turn."""
    log = LogLines()
    engine = create_async_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=5)
    broker = make_broker(engine, logger=log)
    for number in range(3):

        @broker.subscriber(f"q{number}", max_workers=4)
        async def handle(body: int) -> None:
            inbox.add(body)

        await broker.publish_batch(*range(50), queue=f"q{number}", session=session)
    await session.commit()
    await broker.start()
    await inbox.wait_for(150)
    await eventually(table.is_empty)
    await broker.stop()
    await engine.dispose()
    [warning] = log.at_least(logging.WARNING)
    assert "gives out 1 connections at a time, and 13 can be wanted" in warning
    assert "create_async_engine(..., pool_size=13)" in warning


@pytest.mark.parametrize(
    ("options", "is_warned"),
    [
        ({"pool_size": 2, "max_overflow": 2}, True),
        ({"pool_size": 2, "max_overflow": 3}, False),
        ({"pool_size": 0}, False),
        ({"pool_size": 1, "max_overflow": -1}, False),
        ({"poolclass": NullPool}, False),
    ],
)
async def test_a_pool_that_is_too_small_is_said_at_the_start(
    make_broker: MakeBroker, database_url: str, *, options: dict[str, Any], is_warned: bool
) -> None:
    """For three handlers, a lane and a claim."""
    log = LogLines()
    engine = create_async_engine(database_url, **options)
    broker = make_broker(engine, logger=log)

    @broker.subscriber("q", max_workers=2)
    async def handle(body: int) -> None: ...

    @broker.subscriber("p")
    async def handle_too(body: int) -> None: ...

    redis = RedisBroker("redis://127.0.0.1:1")
    broker.forwarder("orders", to=redis.publisher(stream="orders"), lanes=1)
    await broker.start()
    await broker.stop()
    await engine.dispose()
    assert len(log.containing("gives out 4 connections at a time, and 5 can be wanted")) == is_warned
    assert len(log.containing("can be wanted")) == is_warned

import gc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from faststream_outbox import OutboxBroker

from .observing import Inbox, LogLines, Table, Traffic

MakeBroker = Callable[..., OutboxBroker]


@pytest.fixture(autouse=True)
def leaks() -> Iterator[None]:
    """What a test leaves open warns when it is collected; so it warns in that test and not in a later one."""
    yield
    gc.collect()


@pytest.fixture
async def make_broker(engine: AsyncEngine, outbox_table: SqlTable) -> AsyncIterator[MakeBroker]:
    """Make brokers on the test's database; they are stopped at the end."""
    brokers: list[OutboxBroker] = []

    def make(on: AsyncEngine = engine, **options: Any) -> OutboxBroker:
        broker = OutboxBroker(on, outbox_table=outbox_table, **{"logger": None, "graceful_timeout": 5.0} | options)
        brokers.append(broker)
        return broker

    yield make
    for broker in brokers:
        await broker.stop()


@pytest.fixture
def broker(make_broker: MakeBroker) -> OutboxBroker:
    return make_broker()


@pytest.fixture
async def observer_engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine for looking on, whose connections no fault of the test touches."""
    engine = create_async_engine(
        database_url, pool_size=1, connect_args={"server_settings": {"application_name": "observer"}}
    )
    yield engine
    await engine.dispose()


@pytest.fixture
def table(observer_engine: AsyncEngine) -> Table:
    return Table(observer_engine)


@pytest.fixture
async def session(session_factory: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    async with session_factory() as session:
        yield session


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def log() -> LogLines:
    return LogLines()


@pytest.fixture
def traffic(engine: AsyncEngine) -> Iterator[Traffic]:
    traffic = Traffic(engine)
    yield traffic
    traffic.close()

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sqlalchemy import MetaData
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from faststream_outbox import OutboxBroker
from integration.broker.observing import LogLines, Table
from integration.destinations.base import Box
from integration.destinations.kinds import BOXES
from integration.destinations.memory import MemoryBox
from integration.servers.postgres import PostgresServer

from .carriers import Carrier, MemoryCarrier, TableCarrier
from .carrying import Publishing

MakeBroker = Callable[..., OutboxBroker]
NOWHERE = "postgresql+asyncpg://nowhere.invalid/outbox"


@pytest.fixture(autouse=True)
async def nothing_is_left_behind() -> AsyncIterator[None]:
    """After each test: no task, no connection that was dropped instead of closed, no error without a receiver."""
    loop = asyncio.get_running_loop()
    unhandled: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: unhandled.append(context))
    before = asyncio.all_tasks()
    yield
    gc.collect()
    # Clients may take seconds to close.
    deadline = loop.time() + 10.0
    while left := asyncio.all_tasks() - {*before, asyncio.current_task()}:
        assert loop.time() < deadline, left
        await asyncio.sleep(0.01)
    assert not unhandled


@pytest.fixture(scope="session")
def shared_database(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.database() as url:
        yield url


@pytest.fixture
def database_url(postgres_server: PostgresServer, shared_database: str, metadata: MetaData) -> str:
    """One database for all tests here, since none changes its tables: to empty it is quicker than to make another."""
    postgres_server.empty(shared_database, *metadata.tables)
    return shared_database


@pytest.fixture
async def observer_engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url)
    yield engine
    await engine.dispose()


@pytest.fixture
def table(observer_engine: AsyncEngine) -> Table:
    return Table(observer_engine)


@pytest.fixture
def publishing(observer_engine: AsyncEngine, outbox_table: SqlTable) -> Publishing:
    """Publishes, as some other process would."""
    return Publishing(observer_engine, outbox_table)


@pytest.fixture
async def make_broker(
    engine: AsyncEngine, outbox_table: SqlTable, nothing_is_left_behind: None
) -> AsyncIterator[MakeBroker]:
    """Make brokers on the test's database; they are stopped at the end."""
    brokers: list[OutboxBroker] = []

    def make(on: AsyncEngine = engine, **options: Any) -> OutboxBroker:
        broker = OutboxBroker(on, outbox_table=outbox_table, **{"logger": None, "graceful_timeout": 5.0} | options)
        brokers.append(broker)
        return broker

    yield make
    await asyncio.gather(*(broker.stop() for broker in brokers))


@pytest.fixture
def broker(make_broker: MakeBroker) -> OutboxBroker:
    return make_broker()


@pytest.fixture
async def box(request: pytest.FixtureRequest, nothing_is_left_behind: None) -> AsyncIterator[Box]:
    """An address for this test alone, of the kind that its `parametrize` names."""
    kind = BOXES[request.param]
    server = kind.server_fixture and request.getfixturevalue(kind.server_fixture)
    async with kind.open(server) as box:
        yield box


@pytest.fixture
async def stack(nothing_is_left_behind: None) -> AsyncIterator[AsyncExitStack]:
    """What is entered there ends with the test."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def carrier(request: pytest.FixtureRequest, box: Box, outbox_table: SqlTable) -> Carrier:
    """Brings rows to the box, in memory if the box is there."""
    if isinstance(box, MemoryBox):
        broker = OutboxBroker(create_async_engine(NOWHERE), outbox_table=outbox_table, logger=None)
        return MemoryCarrier(broker, box, request.getfixturevalue("stack"))
    make_broker, publishing, table = map(request.getfixturevalue, ("make_broker", "publishing", "table"))
    return TableCarrier(make_broker, publishing, table, box)


@pytest.fixture
def log() -> LogLines:
    return LogLines()


@pytest.fixture
def client_log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the destinations' clients say from WARNING on."""
    caplog.set_level(logging.WARNING)
    return caplog

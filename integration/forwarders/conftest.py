import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from faststream.kafka import KafkaBroker
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from faststream_outbox import OutboxBroker
from integration.broker.observing import LogLines, Table, eventually
from integration.faults.proxy import TcpProxy
from integration.servers.kafka import KafkaServer

from .carrying import Publishing, Topic

MakeBroker = Callable[..., OutboxBroker]


@pytest.fixture(autouse=True)
async def nothing_is_left_behind() -> AsyncIterator[None]:
    """After each test: no task, no connection that was dropped instead of closed, no error without a receiver."""
    loop = asyncio.get_running_loop()
    unhandled: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: unhandled.append(context))
    before = asyncio.all_tasks()
    yield
    gc.collect()
    await eventually(lambda: asyncio.all_tasks() <= {*before, asyncio.current_task()}, within=1.0)
    assert not unhandled


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
def kafka(kafka_server: KafkaServer) -> KafkaBroker:
    """The destination's broker; nobody connects it."""
    return KafkaBroker(kafka_server.bootstrap, acks="all", logger=None)


@pytest.fixture
def proxied_kafka(kafka_proxy: TcpProxy) -> KafkaBroker:
    """The same behind the proxy."""
    return KafkaBroker(kafka_proxy.address, acks="all", logger=None)


@pytest.fixture
def topic(kafka_server: KafkaServer, kafka_topic: str) -> Topic:
    return Topic(kafka_server.bootstrap, kafka_topic)


@pytest.fixture
def log() -> LogLines:
    return LogLines()


@pytest.fixture
def aiokafka_log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What aiokafka says from WARNING on."""
    caplog.set_level(logging.WARNING, "aiokafka")
    return caplog

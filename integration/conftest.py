"""The servers of a session, and what each test gets on them: a database with our tables, a topic.

`OUTBOX_POSTGRES_URL`, `OUTBOX_KAFKA_BOOTSTRAP`, `OUTBOX_RABBITMQ_URL`, `OUTBOX_REDIS_URL` and `OUTBOX_NATS_URL` name
servers to use instead of starting them. Others are containers where there is a Docker engine, else programs on this
machine: `OUTBOX_SERVERS` decides (see `servers.container`). Of either kind there is one for the whole session, and
tests can stop and start it. Only NATS, and the private Redis of `own_redis`, are always programs: dozens of tests want
such a Redis, each with settings of its own.

A server that cannot be had skips the tests that ask for it; with `OUTBOX_REQUIRE_SERVERS=1` it fails them.

Session fixtures are synchronous: they outlive the event loop of any test.
"""

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

import pytest
from sqlalchemy import MetaData, Table
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from faststream_outbox import make_dlq_table, make_outbox_table

from .faults.proxy import TcpProxy
from .servers.kafka import KafkaServer, OwnKafka, running_kafka
from .servers.missing import missing
from .servers.nats import NatsServer, running_nats
from .servers.postgres import PostgresServer, running_postgres
from .servers.process import LOOPBACK, ServerUnavailable
from .servers.rabbitmq import RabbitServer, running_rabbit
from .servers.redis import EmbeddedRedis, RedisServer, running_own_redis, running_redis

S = TypeVar("S")


def enter(stack: ExitStack, running_server: AbstractContextManager[S]) -> S:
    """Keep a server running until the stack is closed; where there is none, the test is skipped, or fails."""
    try:
        return stack.enter_context(running_server)
    except ServerUnavailable as unavailable:
        missing(str(unavailable))


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """A shell starts what runs in the background with Ctrl-C ignored, and programs of the tests would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def metadata() -> MetaData:
    """Holds `outbox` and `outbox_dlq`; every test's database has its tables."""
    metadata = MetaData()
    make_outbox_table(metadata)
    make_dlq_table(metadata)
    return metadata


@pytest.fixture(scope="session")
def outbox_table(metadata: MetaData) -> Table:
    return metadata.tables["outbox"]


@pytest.fixture(scope="session")
def dlq_table(metadata: MetaData) -> Table:
    return metadata.tables["outbox_dlq"]


@pytest.fixture(scope="session")
def postgres_server(metadata: MetaData) -> Iterator[PostgresServer]:
    """The session's PostgreSQL: an `OwnPostgres`, which tests can stop, unless the environment names one."""
    with ExitStack() as stack:
        server = enter(stack, running_postgres())
        stack.enter_context(server.template(metadata))
        yield server


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[KafkaServer]:
    """The session's Kafka: an `OwnKafka`, which tests can stop, unless the environment names one."""
    with ExitStack() as stack:
        yield enter(stack, running_kafka())


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The session's Redis, to be left as it is, whoever else uses it. Tests that break one start their own."""
    with ExitStack() as stack:
        yield enter(stack, running_redis())


@pytest.fixture(scope="session")
def rabbit_server() -> Iterator[RabbitServer]:
    """The session's RabbitMQ: an `OwnRabbit`, which tests can stop, unless the environment names one."""
    with ExitStack() as stack:
        yield enter(stack, running_rabbit())


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """The session's NATS with JetStream: an `EmbeddedNats`, which tests can stop, unless the environment names one."""
    with ExitStack() as stack:
        yield enter(stack, running_nats())


@pytest.fixture
def database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """`postgresql+asyncpg://...` of a database with empty tables for this test alone."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url)
    yield engine
    await engine.dispose()


@pytest.fixture
def session_factory(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    return async_sessionmaker(engine, expire_on_commit=False)


@pytest.fixture
def kafka_topic(kafka_server: KafkaServer) -> Iterator[str]:
    """A topic of 6 partitions for this test alone."""
    with kafka_server.topic(partitions=6) as name:
        yield name


@pytest.fixture
def own_redis() -> Iterator[EmbeddedRedis]:
    """A Redis for this test alone, to be stopped, filled up and reconfigured."""
    with ExitStack() as stack:
        yield enter(stack, running_own_redis())


@pytest.fixture
def redis_key(redis_server: RedisServer) -> Iterator[str]:
    """The name of a key for this test alone."""
    with redis_server.key() as name:
        yield name


@pytest.fixture
async def kafka_proxy(kafka_server: KafkaServer) -> AsyncIterator[TcpProxy]:
    """A proxy before the session's Kafka; clients that start from its `address` stay behind it."""
    if not isinstance(kafka_server, OwnKafka):
        missing("a Kafka named by the environment sends its clients around a proxy")
    async with TcpProxy(LOOPBACK, kafka_server.proxied_port, port=kafka_server.proxy_port) as proxy:
        yield proxy

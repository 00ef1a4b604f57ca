from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from integration.servers.kafka import KafkaServer
from integration.servers.postgres import PostgresServer

from .shop import Shop, make_tables


@pytest.fixture(scope="session")
def tables() -> MetaData:
    return make_tables()


@pytest.fixture
def database_url(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.database() as url:
        yield url


@pytest.fixture
async def engine(database_url: str, tables: MetaData) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(tables.create_all)
    yield engine
    await engine.dispose()


@pytest.fixture
def topic(kafka_server: KafkaServer) -> Iterator[str]:
    with kafka_server.topic(partitions=3) as name:
        yield name


@pytest.fixture
async def shop(engine: AsyncEngine, kafka_server: KafkaServer, topic: str) -> AsyncIterator[Shop]:
    shop = Shop(engine, kafka_server.bootstrap, topic)
    yield shop
    await shop.close()

import pytest
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncEngine

from integration.destinations.kafka import KafkaBox
from integration.destinations.redis import StreamBox
from integration.servers.kafka import KafkaServer
from integration.servers.redis import RedisServer

from .run import Run


@pytest.fixture
async def run(engine: AsyncEngine, outbox_table: SqlTable) -> Run:
    run = Run(engine, outbox_table)
    await run.book.open()
    return run


@pytest.fixture
def topic(kafka_server: KafkaServer, kafka_topic: str) -> KafkaBox:
    return KafkaBox(kafka_server, kafka_topic)


@pytest.fixture
def stream(redis_server: RedisServer, redis_key: str) -> StreamBox:
    return StreamBox(redis_server, redis_key)

import pytest
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncEngine

from integration.ledger.destinations import TopicArrivals
from integration.servers.kafka import KafkaServer

from .run import Run


@pytest.fixture
async def run(engine: AsyncEngine, outbox_table: SqlTable) -> Run:
    run = Run(engine, outbox_table)
    await run.book.open()
    return run


@pytest.fixture
def topic(kafka_server: KafkaServer, kafka_topic: str) -> TopicArrivals:
    return TopicArrivals(kafka_server.bootstrap, kafka_topic)

"""A consumer's database with its inbox, and the effects of its handlers."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import MetaData, Table, text
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import Inbox, make_inbox_table
from integration.broker.conftest import broker, leaks, make_broker, observer_engine, table, traffic
from integration.destinations.rabbit import QueueBox
from integration.scenarios.run import Run
from integration.servers.rabbitmq import RabbitServer

from .consumer import TABLES

__all__ = ("broker", "leaks", "make_broker", "observer_engine", "table", "traffic")


@pytest.fixture
async def inbox_table(engine: AsyncEngine) -> Table:
    metadata = MetaData()
    inbox_table = make_inbox_table(metadata)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        for statement in TABLES.split(";"):
            await connection.execute(text(statement))
    return inbox_table


@pytest.fixture
def inbox(inbox_table: Table) -> Inbox:
    return Inbox(inbox_table, consumer="billing")


@pytest.fixture
async def run(engine: AsyncEngine, outbox_table: Table) -> Run:
    run = Run(engine, outbox_table)
    await run.book.open()
    return run


@pytest.fixture
async def queue(rabbit_server: RabbitServer) -> AsyncIterator[str]:
    """The name of a durable queue for this test alone, fed by the default exchange."""
    async with QueueBox.declared(rabbit_server, rabbit_server.new_name()) as queue:
        yield queue.name

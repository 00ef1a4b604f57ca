"""A consumer's database with its inbox, and the effects of its handlers."""

import pytest
from sqlalchemy import MetaData, Table, text
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import Inbox, make_inbox_table
from integration.broker.conftest import broker, leaks, make_broker, observer_engine, table, traffic

__all__ = ("broker", "leaks", "make_broker", "observer_engine", "table", "traffic")

EFFECTS = "CREATE TABLE effects (number bigint GENERATED ALWAYS AS IDENTITY, key text NOT NULL, consumer text)"
"""One row for each time that a handler has done its work; nothing keeps a second one out."""


@pytest.fixture
async def inbox_table(engine: AsyncEngine) -> Table:
    metadata = MetaData()
    inbox_table = make_inbox_table(metadata)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(text(EFFECTS))
    return inbox_table


@pytest.fixture
def inbox(inbox_table: Table) -> Inbox:
    return Inbox(inbox_table, consumer="billing")

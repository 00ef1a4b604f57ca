from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import MetaData, Table
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from faststream_outbox import OutboxBroker, make_dlq_table, make_outbox_table

PASSWORD = "s3cret"


@pytest.fixture
async def engine() -> AsyncIterator[AsyncEngine]:
    """An engine whose server does not exist: whatever needs one fails at once."""
    engine = create_async_engine(f"postgresql+asyncpg://user-of-db:{PASSWORD}@127.0.0.1:1/shop")
    yield engine
    await engine.dispose()


@pytest.fixture
def outbox_table() -> Table:
    return make_outbox_table(MetaData())


@pytest.fixture
def dlq_table() -> Table:
    return make_dlq_table(MetaData())


@pytest.fixture
async def broker(engine: AsyncEngine, outbox_table: Table) -> AsyncIterator[OutboxBroker]:
    options: dict[str, Any] = {"logger": None, "graceful_timeout": 0.1}
    broker = OutboxBroker(engine, outbox_table=outbox_table, **options)
    yield broker
    await broker.stop()

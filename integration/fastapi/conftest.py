import pytest
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox.fastapi import OutboxRouter

from .shop import Shop


@pytest.fixture
async def shop(engine: AsyncEngine) -> Shop:
    shop = Shop(engine)
    await shop.create_tables()
    return shop


@pytest.fixture
def router(engine: AsyncEngine, outbox_table: Table) -> OutboxRouter:
    return OutboxRouter(engine, outbox_table=outbox_table)

import logging
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import ConstantRetry, OutboxBroker
from faststream_outbox.fastapi import OutboxRouter
from integration.broker.observing import Table as RowsOf
from integration.fastapi.shop import Shop

TWICE = ConstantRetry(delay_seconds=0.01, max_attempts=2)
"""So that a test sees what a failed attempt leaves."""


@pytest.fixture
async def shop(engine: AsyncEngine) -> Shop:
    shop = Shop(engine)
    await shop.create_tables()
    return shop


@pytest.fixture
async def broker(engine: AsyncEngine, outbox_table: Table) -> AsyncIterator[OutboxBroker]:
    broker = OutboxBroker(engine, outbox_table=outbox_table, logger=logging.getLogger("of a test"))
    yield broker
    await broker.stop()


@pytest.fixture
def table(engine: AsyncEngine) -> RowsOf:
    return RowsOf(engine)


@pytest.fixture
def router(engine: AsyncEngine, outbox_table: Table) -> OutboxRouter:
    return OutboxRouter(engine, outbox_table=outbox_table)

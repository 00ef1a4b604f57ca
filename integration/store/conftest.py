import pytest
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine

from .subject import PostgresSubject


@pytest.fixture(params=["parked", "moved"])
def subject(
    request: pytest.FixtureRequest, engine: AsyncEngine, outbox_table: Table, dlq_table: Table
) -> PostgresSubject:
    return PostgresSubject(engine, outbox_table, dlq_table if request.param == "moved" else None)

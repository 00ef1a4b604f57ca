from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, Table, create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from .subject import PostgresSubject


@pytest.fixture(params=["parked", "moved"])
def subject(
    request: pytest.FixtureRequest, engine: AsyncEngine, outbox_table: Table, dlq_table: Table
) -> PostgresSubject:
    return PostgresSubject(engine, outbox_table, dlq_table if request.param == "moved" else None)


@pytest.fixture
def sync_engine(database_url: str) -> Iterator[Engine]:
    """For code without asyncio."""
    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    yield engine
    engine.dispose()

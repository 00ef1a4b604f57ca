"""The store in PostgreSQL passes the suite of all stores, and agrees with the model of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.store.machine import StoreMachine
from tests.store.suite import StoreSuite

from .subject import PostgresSubject


class TestPostgres(StoreSuite):
    pass


@pytest.mark.parametrize("dead_letters", ["parked", "moved"])
def test_life(database_url: str, outbox_table: Table, dlq_table: Table, dead_letters: str) -> None:
    @asynccontextmanager
    async def opened() -> AsyncIterator[PostgresSubject]:
        # Each life has an event loop of its own, and an engine belongs to one.
        engine = create_async_engine(database_url, pool_size=1)
        try:
            yield PostgresSubject(engine, outbox_table, dlq_table if dead_letters == "moved" else None)
            async with engine.begin() as connection:
                await connection.execute(text("TRUNCATE outbox, outbox_dlq"))
        finally:
            await engine.dispose()

    class PostgresMachine(StoreMachine):
        open_subject = staticmethod(opened)

    run_state_machine_as_test(
        PostgresMachine,
        settings=settings(
            max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )

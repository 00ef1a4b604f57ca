"""The store in PostgreSQL passes the suite of all stores, and agrees with the model of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.store.machine import StoreMachine
from tests.store.suite import StoreSuite, draft, ids, places, put

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


async def test_g4_a_row_that_a_stranger_has_locked_is_not_passed_by_later_ones_of_its_key(
    engine: AsyncEngine, outbox_table: Table
) -> None:
    subject = PostgresSubject(engine, outbox_table, None)
    first, second = await put(subject, draft(key="k"), draft(key="k"))

    async def take() -> list[int]:
        async with subject.store.hand_over(places(), limit=10) as hand_over:
            assert hand_over is not None
            return ids(hand_over.rows)

    async with engine.connect() as stranger:
        await stranger.execute(text("SELECT FROM outbox WHERE id = :id FOR UPDATE"), {"id": first})
        taking = asyncio.create_task(take())
        async with engine.connect() as watcher:
            waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()")
            async with asyncio.timeout(10):
                while not await watcher.scalar(waiting):
                    await asyncio.sleep(0.01)
        assert not taking.done()
        await stranger.rollback()
    assert await taking == [first, second]

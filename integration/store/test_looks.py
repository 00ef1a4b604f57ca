"""The store in PostgreSQL can be looked at as every store, and its looks are bounded."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox._store.postgres.onlooker import PostgresOnlooker
from faststream_outbox._values.figures import Count
from tests.store.looks import LookedAt, LooksSuite, figures_of
from tests.store.suite import draft, put

from .subject import PostgresSubject


@pytest.fixture
def looked_at(subject: PostgresSubject) -> LookedAt:
    subject.onlooker = PostgresOnlooker(subject.engine, subject.outbox_table, subject.dlq_table)  # type: ignore[attr-defined]
    return subject  # type: ignore[return-value]


class TestPostgresLooks(LooksSuite):
    async def test_a_count_that_ended_at_its_bound_says_so(self, looked_at: LookedAt) -> None:
        await put(looked_at, *(draft(key="k") for _ in range(5)))
        await put(looked_at, *(draft(key="k", activate_in=timedelta(hours=1)) for _ in range(5)))
        assert (await figures_of(looked_at, at_most=6)).ready == Count(5)
        few = await figures_of(looked_at, at_most=3)
        assert (few.ready, few.timers) == (Count(3, is_whole=False), Count(3, is_whole=False))
        assert str(few.backlog) == "3+"


async def test_looks_go_by_indexes_however_many_rows_there_are(
    engine: AsyncEngine, outbox_table: Table, dlq_table: Table
) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO outbox (queue, key, idempotency_key, payload) "
                "SELECT 'orders', CAST(n AS text), CAST(n AS text), '' FROM generate_series(1, 30000) AS n"
            )
        )
        await connection.execute(text("INSERT INTO outbox (queue, idempotency_key, payload) VALUES ('small', 'x', '')"))
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("VACUUM ANALYZE outbox"))
    await looks_of(engine)  # the look at the statistics itself
    before = await looks_of(engine)
    onlooker = PostgresOnlooker(engine, outbox_table, dlq_table)
    orders, small = await onlooker.queues(limit=10, at_most=100)
    assert (orders.ready, small.ready) == (Count(1600, is_whole=False), Count(1))
    after = await looks_of(engine)
    assert after.idx_scan > before.idx_scan
    assert after.seq_scan == before.seq_scan
    assert after.read - before.read < 10_000, "of 30,001 rows"


async def looks_of(engine: AsyncEngine) -> Any:
    """What the server has counted of looks at the table."""
    async with engine.begin() as connection:
        # Of the one connection of the pool, which made the looks before.
        await connection.execute(text("SELECT pg_stat_force_next_flush()"))
    async with engine.connect() as connection:
        counted = text(
            "SELECT idx_scan, seq_scan, seq_tup_read + idx_tup_fetch AS read "
            "FROM pg_stat_user_tables WHERE relname = 'outbox'"
        )
        return (await connection.execute(counted)).one()

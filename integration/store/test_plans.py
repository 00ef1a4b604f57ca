"""Statements that run beside hand-overs go by the indexes that docs/inside/plans.md names, whatever the statistics."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from faststream_outbox._store.postgres.floors import columns_of
from faststream_outbox._store.postgres.statements import Statements
from tests.store.suite import shards

ALL = columns_of(shards())
NOTHING_BARRED = {"edges": [0] * 16, "barred_at": [], "barriers": [], "barred_from": []}
STATEMENTS: dict[str, dict[str, Any]] = {
    "outlook": {**ALL, "floors": [0] * 16, "started": None, "recovered": None},
    "make_due": {**ALL, "slot": 7, "limit": 10_000},
    "leap": {
        **ALL,
        **NOTHING_BARRED,
        "floors": [0] * 16,
        "started": None,
        "recovered": None,
        "unborn": 1_000_000,
        "most": 101,
    },
}
INDEXES = {
    "outlook": {"outbox_ready_idx", "outbox_waiting_idx"},
    "make_due": {"outbox_waiting_idx", "outbox_pkey"},
    # The primary key says whether a barrier that is known is still there.
    "leap": {"outbox_ready_idx", "outbox_holding_idx", "outbox_pkey"},
}
# 30,000 ready rows, a third of them behind one that waits, and 10,000 deferred ones.
FILL = """
    INSERT INTO outbox (queue, key, idempotency_key, payload, next_attempt_at, last_attempt_at)
    SELECT 'q', CASE WHEN n % 3 = 0 THEN 'held' ELSE 'key' || n END, 'i' || n, '',
        CASE WHEN n = 3 OR n > 30000 THEN now() + interval '1 hour' END,
        CASE WHEN n = 3 OR n > 30000 THEN now() END
    FROM generate_series(1, 40000) AS n
"""


@pytest.fixture
async def connection(engine: AsyncEngine, outbox_table: Table) -> AsyncIterator[AsyncConnection]:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        yield connection


@pytest.mark.parametrize("statistics", ["of the empty table", "fresh"])
@pytest.mark.parametrize("name", STATEMENTS)
async def test_a_statement_goes_by_its_indexes(
    connection: AsyncConnection, outbox_table: Table, name: str, statistics: str
) -> None:
    await connection.execute(text("ALTER TABLE outbox SET (autovacuum_enabled = false)"))
    await connection.execute(text("VACUUM ANALYZE outbox"))
    await connection.execute(text(FILL))
    if statistics == "fresh":
        await connection.execute(text("VACUUM ANALYZE outbox"))
    explain = Statements(outbox_table, None)._load(name, "EXPLAIN ")
    plan = "\n".join((await connection.execute(explain, STATEMENTS[name])).scalars())
    assert set(re.findall(r"outbox_[a-z]\w*", plan)) == INDEXES[name]
    assert "Seq Scan" not in plan

"""A transaction is left open and holds a snapshot, so that no row that was delivered can be cleaned away."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from faststream.redis import RedisBroker
from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import OutboxBroker
from faststream_outbox._store.postgres.store import PostgresStore
from integration.ledger.destinations import StreamArrivals
from integration.servers.redis import RedisServer

from .results import record
from .run import Run, forms

RATE = 500
TIMES_SLOWER_AT_MOST = 5
NOISE = 0.05
"""Seconds that the scheduler of a busy machine can add to any statement."""


@dataclass(frozen=True)
class Plan:
    quiet: float
    held: float


@forms(Plan(4.0, 8.0), Plan(30.0, 300.0), timeout=600)
async def test_claims_stay_quick_while_a_snapshot_is_held(
    run: Run,
    engine: AsyncEngine,
    outbox_table: Table,
    redis_server: RedisServer,
    redis_key: str,
    monkeypatch: pytest.MonkeyPatch,
    plan: Plan,
) -> None:
    claims = _watch_claims(monkeypatch)
    broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None)
    broker.forwarder("orders", to=RedisBroker(redis_server.url, logger=None).publisher(stream=redis_key))
    await broker.start()
    try:
        async with run.load(6).flowing(RATE):
            await asyncio.sleep(plan.quiet)
            quiet = _p99(claims)
            claims.clear()
            async with _held_snapshot(engine):
                await asyncio.sleep(plan.held)
                held = _p99(claims)
        await run.drained(within=60)
    finally:
        await broker.stop()
    findings = await run.audit(StreamArrivals(redis_server, redis_key))
    record(
        findings,
        "A transaction left open",
        load=f"{RATE} rows/s",
        faults=f"a snapshot held for {plan.held:g} s",
        besides=f"claims p99 {quiet * 1000:.1f} ms before, {held * 1000:.1f} ms while it was held",
    )
    findings.check()
    assert held < max(TIMES_SLOWER_AT_MOST * quiet, NOISE)


def _watch_claims(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of every taking of rows: until a place is locked and its rows are there."""
    claims: list[float] = []
    hand_over = PostgresStore.hand_over

    @asynccontextmanager
    async def timed(self: PostgresStore, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
        began = time.monotonic()
        async with hand_over(self, *arguments, **options) as taken:
            if taken is not None:
                claims.append(time.monotonic() - began)
            yield taken

    monkeypatch.setattr(PostgresStore, "hand_over", timed)
    return claims


def _p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


@asynccontextmanager
async def _held_snapshot(engine: AsyncEngine) -> AsyncIterator[None]:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        await connection.execute(text("SELECT count(*) FROM outbox"))
        yield

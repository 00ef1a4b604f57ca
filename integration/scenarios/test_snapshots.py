"""A transaction is left open and holds a snapshot, so that no row that was delivered can be cleaned away."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import OutboxBroker
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox.annotations import OutboxMessage
from integration.destinations.received import IDENTITY, Received
from integration.destinations.redis import StreamBox
from integration.faults.snapshots import held_snapshot

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


class Handled:
    """What a handler received."""

    def __init__(self, broker: OutboxBroker) -> None:
        self._received: list[Received] = []

        @broker.subscriber("orders")
        async def handle(message: OutboxMessage) -> None:
            headers = {**message.headers, IDENTITY: message.idempotency_key}
            self._received.append(Received(0, message.key, message.body, headers))

    async def read(self) -> list[Received]:
        return self._received


@forms(Plan(4.0, 8.0), Plan(30.0, 300.0), timeout=600)
@pytest.mark.parametrize("consumer", ["forwarder", "subscriber"])
async def test_claims_stay_quick_while_a_snapshot_is_held(
    run: Run,
    engine: AsyncEngine,
    outbox_table: Table,
    stream: StreamBox,
    monkeypatch: pytest.MonkeyPatch,
    plan: Plan,
    consumer: str,
) -> None:
    claims = _watch_claims(monkeypatch)
    broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None)
    consumed: Handled | StreamBox
    if consumer == "forwarder":
        broker.forwarder("orders", to=stream.publisher())
        consumed = stream
    else:
        consumed = Handled(broker)
    await broker.start()
    try:
        async with run.load(6).flowing(RATE):
            await asyncio.sleep(plan.quiet)
            quiet = _p99(claims)
            claims.clear()
            async with held_snapshot(engine):
                await asyncio.sleep(plan.held)
                held = _p99(claims)
        await run.drained(within=60)
    finally:
        await broker.stop()
    findings = await run.audit(await consumed.read())
    record(
        findings,
        f"A transaction left open, a {consumer}",
        load=f"{RATE} rows/s",
        faults=f"a snapshot held for {plan.held:g} s",
        besides=f"claims p99 {quiet * 1000:.1f} ms before, {held * 1000:.1f} ms while it was held",
    )
    findings.check()
    assert held < max(TIMES_SLOWER_AT_MOST * quiet, NOISE)


def _watch_claims(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of every taking of rows: until they are locked or leased, and here."""
    claims: list[float] = []
    hand_over, claim = PostgresStore.hand_over, PostgresStore.claim

    @asynccontextmanager
    async def timed(self: PostgresStore, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
        began = time.monotonic()
        async with hand_over(self, *arguments, **options) as taken:
            if taken is not None:
                claims.append(time.monotonic() - began)
            yield taken

    async def timed_claim(self: PostgresStore, *arguments: Any, **options: Any) -> Any:
        began = time.monotonic()
        rows = await claim(self, *arguments, **options)
        if rows:
            claims.append(time.monotonic() - began)
        return rows

    monkeypatch.setattr(PostgresStore, "hand_over", timed)
    monkeypatch.setattr(PostgresStore, "claim", timed_claim)
    return claims


def _p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]

"""The query of `docker/monitoring/keda.yaml` counts what waits, and reads no more than that."""

import json
from pathlib import Path

import pytest
import yaml
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

MANIFEST = Path(__file__).parents[2] / "docker" / "monitoring" / "keda.yaml"


@pytest.fixture(scope="module")
def query() -> str:
    [scaled, _] = yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8"))
    [trigger] = scaled["spec"]["triggers"]
    assert all(isinstance(value, str) for value in trigger["metadata"].values()), "KEDA takes strings alone"
    written: str = trigger["metadata"]["query"]
    return written


async def fill(session: AsyncSession, count: int, state: str) -> None:
    """Write rows of 500 keys; `state` is the columns that make it, and their values."""
    columns, _, values = state.partition("=")
    names, filled = (f", {columns}", f", {values}") if columns else ("", "")
    await session.execute(
        text(
            f"INSERT INTO outbox (queue, key, idempotency_key, payload, headers{names}) "
            f"SELECT 'orders', n % 500, gen_random_uuid(), '', '{{}}'{filled} FROM generate_series(1, {count}) AS n"
        )
    )


async def test_it_counts_the_backlog_and_nothing_else(session: AsyncSession, query: str) -> None:
    await fill(session, 30, "")
    await fill(session, 7, "next_attempt_at=now() - interval '1 s'")
    await fill(session, 100, "next_attempt_at=now() + interval '1 h'")
    await fill(session, 50, "failed_at=now()")
    await fill(session, 60, "acquired_token, next_attempt_at='lease:x', now() - interval '1 s'")
    assert await session.scalar(text(query)) == 37


async def test_it_costs_no_more_however_much_waits(session: AsyncSession, query: str) -> None:
    await fill(session, 30_000, "")
    await fill(session, 3_000, "next_attempt_at=now() + interval '1 h'")
    await session.commit()
    assert await session.scalar(text(query)) == 16_000, "each shard is counted up to its bound"
    [plan] = (await session.scalars(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}"))).one()
    written = json.dumps(plan)
    assert "Seq Scan" not in written
    assert {"outbox_ready_idx", "outbox_waiting_idx"} <= {name for name in written.split('"') if name.endswith("_idx")}

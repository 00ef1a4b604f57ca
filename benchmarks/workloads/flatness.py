"""Claims from a short table, from one with a million ready rows, and from one with a million timers before them.

The planner's statistics are those of the empty table, which is the worst that it can have.
"""

import statistics
import time
from typing import Any

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.contest import OURS, Bench, Figures, Goal, Workload
from benchmarks.messages import BODY_BYTES, QUEUE
from benchmarks.workloads.relay import backlog, connection
from faststream_outbox import make_outbox_table
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox._values.outcome import Delivered, Released, Settlement
from faststream_outbox._values.shard import Shard
from faststream_outbox.schema import SHARDS

SHORT = "1,000 ready"
READY = "1 M ready"
FUTURE = "1 M future-dated"
CLAIM = "ms, claim of 100"
TAKE = "ms, hand-over of 500"

# Keys of 500 rows each, so that a short table fills a hand-over too.
FILL = f"""
    INSERT INTO outbox (queue, key, idempotency_key, payload, next_attempt_at)
    SELECT '{QUEUE}', 'key-' || (i - 1) / 500, gen_random_uuid(), convert_to(repeat('n', {BODY_BYTES}), 'UTF8'),
        clock_timestamp() + make_interval(secs => $2::float8 + i)
    FROM generate_series(1, $1::integer) AS i
"""  # noqa: S608 - our own constants
EVERYWHERE = [Shard(QUEUE, number) for number in range(SHARDS)]


async def claim(store: PostgresStore, table: Any) -> float:
    """Claim 100 rows; returns milliseconds. They are made ready again afterwards."""
    began = time.perf_counter()
    rows = (await store.claim(EVERYWHERE, limit=100, lease_seconds=60, token="bench")).rows  # noqa: S106
    taken = time.perf_counter() - began
    assert len(rows) == 100
    await store.settle([Settlement(row, Released()) for row in rows], token="bench")  # noqa: S106
    await table.execute("UPDATE outbox SET next_attempt_at = NULL WHERE id = ANY ($1)", [row.id for row in rows])
    return taken * 1000


async def take(store: PostgresStore, table: Any) -> float:
    """Take 500 rows and delete them; returns milliseconds. As many are added afterwards."""
    began = time.perf_counter()
    async with store.hand_over(EVERYWHERE, limit=500) as hand_over:
        assert hand_over is not None
        assert len(hand_over.rows) == 500
        await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
    taken = time.perf_counter() - began
    await table.execute(FILL, 500, None)
    return taken * 1000


async def run_flatness(bench: Bench, contestant: str) -> Figures:
    """Fill a table, then claim again and again."""
    million = bench.sizes.million
    with bench.servers.database(await backlog(bench, OURS, 0)) as url:
        engine = create_async_engine(url, pool_size=1, max_overflow=0)
        store = PostgresStore(engine, make_outbox_table(MetaData()))
        async with connection(url) as table:
            await table.execute("ALTER TABLE outbox SET (autovacuum_enabled = false)")
            if contestant == FUTURE:
                await table.execute(FILL, million, 86_400.0, timeout=300)
            await table.execute(FILL, million if contestant == READY else 1000, None, timeout=300)
            for _ in range(3):
                await claim(store, table)
                await take(store, table)
            claims = [await claim(store, table) for _ in range(bench.sizes.repetitions)]
            takes = [await take(store, table) for _ in range(bench.sizes.repetitions)]
        await engine.dispose()
    return {CLAIM: statistics.median(claims), TAKE: statistics.median(takes)}


WORKLOADS = [
    Workload(
        name="flatness",
        title="Claims from a long table",
        unit="ms",
        contestants=[SHORT, READY, FUTURE],
        run=run_flatness,
        goals=[
            Goal(what=f"{name}, {long} against {SHORT}", of=(long, name), to=(SHORT, name), at_most=1.5)
            for name in (CLAIM, TAKE)
            for long in (READY, FUTURE)
        ],
        once=True,
    )
]

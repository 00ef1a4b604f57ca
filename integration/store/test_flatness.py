"""What a statement costs does not hang on how many rows wait in the table. See docs/inside/plans.md.

Each table is measured twice. First with the planner's worst memory: statistics taken while the table was empty, and
every statement run so often on the same connection, with an empty table, that PostgreSQL would have kept a plan for it.
Then with fresh statistics.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from faststream_outbox._store.postgres import floors
from faststream_outbox._store.protocol import PRESENCE_PREFIX
from faststream_outbox._values.outcome import Dead, Deferred, Delivered, Outcome, Released, Retry, Settlement
from faststream_outbox._values.shard import Shard
from faststream_outbox.schema import SHARDS
from integration.servers.postgres import PostgresServer
from tests.store.suite import ME, draft, ids, put, shards

from .subject import PostgresSubject

REPETITIONS = 30
MILLION = 1_000_000

# Keys of 500 rows each: a thousand rows fill a whole hand-over too, and the order of a key is looked after.
FILL = text("""
    INSERT INTO outbox (queue, key, idempotency_key, payload, next_attempt_at)
    SELECT 'q', 'key' || (i - 1) / 500, 'i' || i, convert_to(repeat('x', 200), 'UTF8'),
        clock_timestamp() + make_interval(secs => CAST(:seconds AS float8) + i)
    FROM generate_series(1, CAST(:count AS integer)) AS i
""")

# Rows that stand behind one of their key.
BEHIND = text("""
    INSERT INTO outbox (queue, key, idempotency_key, payload)
    SELECT 'q', CAST(:key AS text), 'behind' || i, convert_to(repeat('x', 200), 'UTF8')
    FROM generate_series(1, CAST(:count AS integer)) AS i
""")

LAST = text("SELECT id, shard FROM outbox WHERE queue = 'q' AND next_attempt_at IS NULL ORDER BY id DESC LIMIT 100")

KEPT_AND_NEW_PLANS = text("""
    SELECT statement, generic_plans, custom_plans FROM pg_prepared_statements
    WHERE statement LIKE '/* outbox %generate_series(1, 1000000000000000)%'
""")


class Bench:
    def __init__(self, engine: AsyncEngine, outbox_table: Table, dlq_table: Table) -> None:
        self.subject = PostgresSubject(engine, outbox_table, dlq_table)
        self.parking = PostgresSubject(engine, outbox_table, None)
        self.engine = engine
        self.times: defaultdict[str, list[float]] = defaultdict(list)

    @asynccontextmanager
    async def timed(self, name: str) -> AsyncIterator[None]:
        began = time.perf_counter()
        yield
        self.times[name].append((time.perf_counter() - began) * 1000)

    async def fill(self, ready: int, future: int = 0) -> None:
        async with self.engine.begin() as connection:
            if future:
                await connection.execute(FILL, {"count": future, "seconds": 86400})
            await connection.execute(FILL, {"count": ready, "seconds": None})

    async def administer(self, statement: str) -> None:
        async with self.engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.exec_driver_sql(statement)

    async def hand_over(self) -> None:
        async with self.timed("hand_over"), self.subject.store.hand_over(shards(), limit=500) as hand_over:
            if hand_over is not None:
                assert len(hand_over.rows) == 500
                await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
        if hand_over is not None:
            await self.fill(500)

    async def broad_hand_over(self) -> None:
        """Of all shards at once, and without an effect."""
        store = self.subject.store
        async with self.timed("broad_hand_over"), store.hand_over(shards(), limit=480, breadth=SHARDS) as hand_over:
            if hand_over is not None:
                assert len(hand_over.rows) > 400

    async def known_hand_over(self) -> None:
        """Of the last rows of a shard, by their ids, and without an effect."""
        async with self.engine.connect() as connection:
            last = (await connection.execute(LAST)).all()
        where = Shard("q", last[0].shard if last else 0)
        only = [row.id for row in last if row.shard == where.number]
        store = self.subject.store
        async with self.timed("known_hand_over"), store.hand_over([where], limit=100, only=only) as hand_over:
            if hand_over is not None:
                assert ids(hand_over.rows) == sorted(only)

    async def claim(self) -> None:
        store = self.subject.store
        async with self.timed("claim"):
            rows = (await store.claim(shards(), limit=100, lease_seconds=60, token=ME)).rows
        async with self.timed("renew"):
            await store.renew(rows, lease_seconds=60, token=ME)
        async with self.timed("rescue"):
            await store.rescue(token=ME, suspects=frozenset({f"{PRESENCE_PREFIX}gone"}))
        await store.settle([Settlement(row, Released()) for row in rows], token=ME)
        # What is given back is due, and would be claimed before the ready ones.
        await self.administer(f"UPDATE outbox SET next_attempt_at = NULL WHERE id = ANY (ARRAY{ids(rows) or [0]})")

    async def settle(self) -> None:
        """Each kind for rows of its own queue, so that the rows to be measured stay as they are."""
        kinds: dict[str, tuple[PostgresSubject, Outcome]] = {
            "delivered": (self.subject, Delivered()),
            "retry": (self.subject, Retry(3600)),
            "released": (self.subject, Released()),
            "deferred": (self.subject, Deferred(7)),
            "dead_moved": (self.subject, Dead("rejected")),
            "dead_parked": (self.parking, Dead("rejected")),
        }
        for name, (subject, outcome) in kinds.items():
            async with subject.transaction() as session:
                await subject.writer.insert_many(session, [draft(name) for _ in range(20)])
            rows = (await subject.store.claim(shards(name), limit=20, lease_seconds=60, token=ME)).rows
            async with self.timed(f"settle_{name}"):
                await subject.store.settle([Settlement(row, outcome) for row in rows], token=ME)
            await self.administer(f"DELETE FROM outbox WHERE id = ANY (ARRAY{ids(rows) or [0]})")

    async def look(self) -> None:
        async with self.timed("survey"):
            await self.subject.store.survey(shards())
        for name, consumed in (("unconsumed", ["q"]), ("unconsumed_all", [])):
            async with self.timed(name):
                await self.subject.store.unconsumed(consumed, limit=20)
        async with self.timed("outlook"):
            await self.subject.store.outlook(shards())
        async with self.timed("make_due"):
            await self.subject.store.make_due(shards(), slot=7, limit=10_000)
        async with self.subject.transaction() as session:
            await self.subject.writer.insert(session, draft("timers", timer_id="t", activate_in=timedelta(hours=1)))
            async with self.timed("cancel_timer"):
                assert await self.subject.writer.cancel_timer(session, queue="timers", timer_id="t")

    async def run(self, repetitions: int) -> dict[str, float]:
        self.times.clear()
        for _ in range(repetitions):
            await self.hand_over()
            await self.broad_hand_over()
            # Not on an empty table, so twice here.
            for _ in range(2):
                await self.known_hand_over()
            await self.claim()
            await self.settle()
            await self.look()
        return {name: statistics.median(times) for name, times in self.times.items()}

    async def warm_up(self) -> None:
        """Let PostgreSQL see every statement on the empty table, and those of a hand-over on a nearly empty one."""
        await self.run(6)
        for _ in range(12):
            async with self.subject.transaction() as session:
                await self.subject.writer.insert(session, draft(key="k"))
            async with self.subject.store.hand_over(shards(), limit=500) as hand_over:
                assert hand_over is not None
                await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
        await self.run(6)

    async def check_that_all_was_planned_anew(self) -> None:
        async with self.engine.connect() as connection:
            plans = (await connection.execute(KEPT_AND_NEW_PLANS)).all()
        assert len(plans) == 18
        for statement, kept, new in plans:
            assert kept == 0, statement
            assert new > REPETITIONS, statement


@asynccontextmanager
async def bench(server: PostgresServer, *tables: Table) -> AsyncIterator[Bench]:
    with server.database() as url:
        # One connection, so that its memory of plans is the one that is measured.
        engine = create_async_engine(url, pool_size=1, max_overflow=0)
        try:
            yield Bench(engine, *tables)
        finally:
            await engine.dispose()


async def measured(bench: Bench, ready: int, future: int = 0) -> dict[str, dict[str, float]]:
    await bench.administer("ALTER TABLE outbox SET (autovacuum_enabled = false)")
    await bench.administer("VACUUM (ANALYZE) outbox")
    await bench.warm_up()
    await bench.fill(ready, future)
    stale = await bench.run(REPETITIONS)
    await bench.check_that_all_was_planned_anew()
    await bench.administer("VACUUM (ANALYZE) outbox")
    return {"statistics of an empty table": stale, "fresh statistics": await bench.run(REPETITIONS)}


def report(title: str, results: dict[str, Any], reference: dict[str, Any]) -> None:
    for state, medians in results.items():
        print(f"\n{title}, {state}")
        for name, milliseconds in medians.items():
            print(f"  {name:20}{milliseconds:8.2f} ms  x {milliseconds / reference[state][name]:.2f}")


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each survey also walks through the shards from their beginning."""
    monkeypatch.setattr(floors, "WALKS_APART", 0)


@pytest.mark.timeout(240)
async def test_no_statement_reads_the_whole_table(
    postgres_server: PostgresServer, outbox_table: Table, dlq_table: Table
) -> None:
    async with bench(postgres_server, outbox_table, dlq_table) as small:
        reference = await measured(small, 1000)
    report("1,000 rows", reference, reference)
    for title, ready, future in (("1 M ready", MILLION, 0), ("30 k ready behind 1 M future", 30_000, MILLION)):
        async with bench(postgres_server, outbox_table, dlq_table) as large:
            results = await measured(large, ready, future)
        report(title, results, reference)
        for state, medians in results.items():
            for name, milliseconds in medians.items():
                # What is over in a millisecond or two may stumble on a busy machine; to read a million rows takes 100.
                assert milliseconds <= 3 * reference[state][name] + 3, (title, state, name)


async def visits(bench: Bench, behind: int) -> dict[str, float]:
    """Return the median of looks at a shard of which a dead letter holds the first so many rows."""
    await bench.administer("ALTER TABLE outbox SET (autovacuum_enabled = false)")
    await bench.administer("VACUUM (ANALYZE) outbox")
    await put(bench.subject, draft(key="key0"))
    async with bench.subject.store.hand_over(shards(), limit=1) as hand_over:
        assert hand_over is not None
        await hand_over.settle([Settlement(row, Dead("rejected", holds_key=True)) for row in hand_over.rows])
        [shard] = hand_over.shards
    async with bench.engine.begin() as connection:
        await connection.execute(BEHIND, {"key": "key0", "count": behind})
    # The horizon passes them with the second answer about who writes.
    for _ in range(4):
        await put(bench.subject, draft("elsewhere"))
        await bench.subject.store.claim(shards("elsewhere"), limit=100, lease_seconds=60, token=ME)
        await bench.subject.store.survey(shards())
    medians = {}
    for state in ("statistics of an empty table", "fresh statistics"):
        bench.times.clear()
        for _ in range(REPETITIONS):
            async with bench.timed("visit"), bench.subject.store.hand_over([shard], limit=500) as hand_over:
                assert hand_over is not None
                assert list(hand_over.vacant) == [shard]
        medians[state] = statistics.median(bench.times["visit"])
        await bench.administer("VACUUM (ANALYZE) outbox")
    return medians


@pytest.mark.timeout(240)
async def test_a_busy_key_that_is_held_is_no_dearer_for_the_rows_behind_it(
    postgres_server: PostgresServer, outbox_table: Table, dlq_table: Table
) -> None:
    async with bench(postgres_server, outbox_table, dlq_table) as small:
        reference = await visits(small, 100)
    async with bench(postgres_server, outbox_table, dlq_table) as large:
        results = await visits(large, 100_000)
    for state, milliseconds in results.items():
        print(f"\na visit, {state}: {reference[state]:.2f} ms behind 100 rows, {milliseconds:.2f} ms behind 100,000")
        assert milliseconds <= 3 * reference[state] + 3, state

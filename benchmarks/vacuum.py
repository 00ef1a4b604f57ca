"""Measures what autovacuum's settings do to an outbox table: `python -m benchmarks.vacuum`.

Tables with different settings stand side by side on one server and get the same load at the same time, so that whatever
else the machine does is shared. Each has a backlog of timers, and rows that are published, claimed and deleted.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import asyncpg
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from faststream_outbox import make_outbox_table
from faststream_outbox._store.postgres.ddl import autovacuum
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox._values.outcome import DELIVERED, Settlement
from faststream_outbox._values.shard import Shard
from faststream_outbox.schema import SHARDS
from integration.servers.postgres import running_postgres

HOLDER = "presence:vacuum"
BATCH = 20
STATISTICS = """
    SELECT n_dead_tup, autovacuum_count, pg_table_size(relid) AS heap, pg_indexes_size(relid) AS indexes
    FROM pg_stat_user_tables WHERE relname = $1
"""
FILL = """
    INSERT INTO {table} (queue, payload, headers, next_attempt_at, timer_id)
    SELECT 'timers', decode(repeat('00', 230), 'hex'), '{{"content-type": "application/json"}}',
        now() + interval '1 day' + n * interval '1 second', n
    FROM generate_series(1, {rows}) AS n
"""
PUBLISH = """
    INSERT INTO {table} (queue, key, payload, headers)
    SELECT 'orders', n, decode(repeat('00', 230), 'hex'), '{{"content-type": "application/json"}}'
    FROM generate_series(1, {rows}) AS n
"""

SETTINGS: Mapping[str, str] = {
    "PostgreSQL's defaults": "",
    "scale factor 0, threshold 1,000": "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000",
    "as ddl autovacuum prints": "printed",
}


@dataclass
class Course:
    """One table under load, and what was seen of it."""

    name: str
    table: str
    claims: list[float] = field(default_factory=list)
    most_dead: int = 0
    vacuums: int = 0
    heap: tuple[int, int] = (0, 0)
    """Its size when the load begins, and in the end."""
    indexes: tuple[int, int] = (0, 0)
    rows: int = 0


async def load(course: Course, engine: AsyncEngine, dsn: str, *, rate: float, seconds: float) -> None:
    """Publish at a rate, claim and delete what is there, and time each claim."""
    store = PostgresStore(engine, make_outbox_table(MetaData(), course.table))
    shards = [Shard("orders", number) for number in range(SHARDS)]
    publisher = await asyncpg.connect(dsn)
    began = time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        await publisher.execute(PUBLISH.format(table=course.table, rows=BATCH))
        while True:
            asked = time.perf_counter()
            claim = await store.claim(shards, limit=BATCH, lease_seconds=60, token=HOLDER)
            if not claim.rows:
                break
            if now > seconds / 2:
                course.claims.append(1000 * (time.perf_counter() - asked))
            await store.settle([Settlement(row, DELIVERED) for row in claim.rows], token=HOLDER)
            course.rows += len(claim.rows)
        await asyncio.sleep(max(0.0, course.rows / rate - (time.monotonic() - began)))
    await publisher.close()


async def watch(courses: list[Course], dsn: str) -> None:
    """Read the statistics until it is cancelled."""
    connection = await asyncpg.connect(dsn)
    try:
        while True:
            for course in courses:
                seen = await connection.fetchrow(STATISTICS, course.table)
                course.most_dead = max(course.most_dead, seen["n_dead_tup"])
                course.vacuums = seen["autovacuum_count"]
                course.heap = (course.heap[0] or seen["heap"], seen["heap"])
                course.indexes = (course.indexes[0] or seen["indexes"], seen["indexes"])
            await asyncio.sleep(1.0)
    finally:
        await connection.close()


async def prepare(course: Course, settings: str, engine: AsyncEngine, *, backlog: int) -> None:
    """Create the table, set it up, and fill it."""
    metadata = MetaData()
    table = make_outbox_table(metadata, course.table)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        if settings == "printed":
            await connection.exec_driver_sql(autovacuum(table).rstrip(";"))
        elif settings:
            await connection.exec_driver_sql(f"ALTER TABLE {course.table} SET ({settings})")
        await connection.exec_driver_sql(FILL.format(table=course.table, rows=backlog))
    async with engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.exec_driver_sql(f"VACUUM ANALYZE {course.table}")


async def run(url: str, *, seconds: float, rate: float, backlog: int) -> None:
    """Run all courses at once and print a row of a table for each."""
    dsn = url.replace("+asyncpg", "")
    engine = create_async_engine(url, pool_size=10)
    courses = [Course(name, f"outbox_{number}") for number, name in enumerate(SETTINGS)]
    for course, settings in zip(courses, SETTINGS.values(), strict=True):
        await prepare(course, settings, engine, backlog=backlog)
    watching = asyncio.create_task(watch(courses, dsn))
    await asyncio.gather(*(load(course, engine, dsn, rate=rate, seconds=seconds) for course in courses))
    await asyncio.sleep(1.5)
    watching.cancel()
    await asyncio.wait([watching])
    await engine.dispose()
    print("| settings | rows | most dead rows | vacuums | table grew by | indexes grew by | claim p50 | claim p99 |")
    print("|---|---|---|---|---|---|---|---|")
    for each in courses:
        quantiles = statistics.quantiles(each.claims, n=100)
        grown = [f"{(after - before) / 2**20:.1f} MiB" for before, after in (each.heap, each.indexes)]
        print(
            f"| {each.name} | {each.rows:,} | {each.most_dead:,} | {each.vacuums} | {grown[0]} | {grown[1]} "
            f"| {quantiles[49]:.1f} ms | {quantiles[98]:.1f} ms |"
        )


def main() -> None:
    """Read the arguments, start a server, and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vacuum", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--rate", type=float, default=200.0, help="rows a second for each table")
    parser.add_argument("--backlog", type=int, default=300_000, help="timers in each table")
    options = parser.parse_args()
    with running_postgres() as server, server.database("ENCODING 'UTF8'") as url:
        asyncio.run(run(url, seconds=options.seconds, rate=options.rate, backlog=options.backlog))


if __name__ == "__main__":
    main()

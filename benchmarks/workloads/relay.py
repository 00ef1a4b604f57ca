"""A backlog is carried to a destination."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.contest import BEST, DEFAULTS, EXACT, LIMIT, OURS, Bench, CheckFailed, Figures, Goal, Workload
from benchmarks.destinations import DESTINATIONS, Destination
from benchmarks.limit.database import connect
from benchmarks.opponent import settings
from benchmarks.processes import Program, program, run_program

RATE = "rows/s"
CPU = "µs of its processor time each"
LOOK_SECONDS = 0.02

MODULES = {
    OURS: "benchmarks.programs.relay",
    EXACT: "benchmarks.programs.relay",
    LIMIT: "benchmarks.limit.relay",
    BEST: "benchmarks.opponent.relay",
    DEFAULTS: "benchmarks.opponent.relay",
}
SETTINGS = {BEST: settings.BEST, DEFAULTS: settings.DEFAULTS, EXACT: {"exactly_once": True}}


async def backlog(bench: Bench, contestant: str, count: int) -> str:
    """Give the name of a database with an outbox of so many messages, to be copied for each run."""
    python = bench.python(contestant)
    key = (str(python), count)
    if key not in bench.backlogs:
        name = bench.servers.new_database()
        await run_program("benchmarks.programs.fill", python, database=bench.servers.postgres.url_of(name), count=count)
        async with connection(bench.servers.postgres.url_of(name)) as conn:
            await conn.execute("VACUUM (ANALYZE)")
        bench.backlogs[key] = name
    return bench.backlogs[key]


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[Any]:
    """Connect with asyncpg, to look at a database from outside."""
    connected = await connect(url)
    try:
        yield connected
    finally:
        await connected.close()


async def run_relay(bench: Bench, contestant: str, kind: str, **options: Any) -> Figures:
    """Let one contestant carry the backlog, or as much as it can within the window."""
    count = bench.sizes.backlog
    with bench.servers.database(await backlog(bench, contestant, count)) as url:
        async with (
            DESTINATIONS[kind](bench.servers) as destination,
            connection(url) as table,
            program(
                MODULES[contestant],
                bench.python(contestant),
                database=url,
                kind=kind,
                address=destination.address,
                name=destination.name,
                **{"settings": SETTINGS.get(contestant, {})} | options,
            ) as relay,
        ):
            await relay.hear()
            rate = await measure([relay], destination, table, count, bench.sizes.window)
            [said] = await stop([relay])
            arrived = await check(destination, table, count, keeps_order=contestant in {OURS, EXACT})
    return {RATE: rate, CPU: said["cpu"] / arrived * 1e6}


async def measure(relays: Sequence[Program], destination: Destination, table: Any, count: int, window: float) -> float:
    """Let relays begin; returns rows per second until all have arrived and are settled, or the window is over."""
    began = time.perf_counter()
    for relay in relays:
        await relay.say("go")
    while (arrived := await destination.count()) < count:
        if (elapsed := time.perf_counter() - began) > window:
            return arrived / elapsed
        await asyncio.sleep(LOOK_SECONDS)
    while await table.fetchval("SELECT EXISTS (SELECT FROM outbox)"):
        await asyncio.sleep(LOOK_SECONDS)
    return count / (time.perf_counter() - began)


async def stop(relays: Sequence[Program]) -> list[dict[str, Any]]:
    """Let relays finish what they have in hand."""
    return list(await asyncio.gather(*(relay.ask("stop") for relay in relays)))


async def check(destination: Destination, table: Any, count: int, *, keeps_order: bool) -> int:
    """Compare what arrived, and what is left, with what was published; returns how many arrived."""
    bodies = await destination.bodies()
    numbers = {body["number"] for body in bodies}
    left = await table.fetchval("SELECT count(*) FROM outbox")
    if len(numbers) + left < count:
        raise CheckFailed(f"{len(numbers)} messages arrived and {left} are left, of {count}")
    if not keeps_order:
        return len(bodies)
    if len(numbers) + left > count or len(bodies) > len(numbers):
        raise CheckFailed(f"{len(bodies)} messages arrived, {len(numbers)} different ones; {left} are left, of {count}")
    by_key: defaultdict[str, list[int]] = defaultdict(list)
    for body in bodies:
        if body["key"] is not None:
            by_key[body["key"]].append(body["number"])
    if disturbed := [key for key, found in by_key.items() if found != sorted(found)]:
        raise CheckFailed(f"{len(disturbed)} keys out of order, {disturbed[0]} among them")
    return len(bodies)


def relay_workload(kind: str, title: str, *, best: float, defaults: float, limit: float) -> Workload:
    """Make the workload of one kind of destination, with its goals."""

    async def run(bench: Bench, contestant: str) -> Figures:
        return await run_relay(bench, contestant, kind)

    def goal(what: str, other: str, at_least: float) -> Goal:
        return Goal(what=what, of=(OURS, RATE), to=(other, RATE), at_least=at_least)

    return Workload(
        name=kind,
        title=f"Relay to {title}",
        unit=RATE,
        contestants=[OURS, LIMIT, BEST, DEFAULTS],
        run=run,
        goals=[
            goal("times the other, best settings", BEST, best),
            goal("times the other, defaults", DEFAULTS, defaults),
            goal("of the limit", LIMIT, limit),
        ],
    )


def exactly_once_workload(kind: str, title: str, *, at_least: float) -> Workload:
    """Return the workload of a destination with exactly_once, with and without it; connecting counts."""

    async def run(bench: Bench, contestant: str) -> Figures:
        return await run_relay(bench, contestant, kind)

    return Workload(
        name=f"{kind}-exactly-once",
        title=f"Relay to {title}, exactly once",
        unit=RATE,
        contestants=[EXACT, OURS],
        run=run,
        goals=[Goal(what="of the rate without it", of=(EXACT, RATE), to=(OURS, RATE), at_least=at_least)],
    )


WORKLOADS = [
    relay_workload("kafka", "Kafka", best=6, defaults=40, limit=0.6),
    exactly_once_workload("kafka", "Kafka", at_least=0.9),
    relay_workload("redis", "a Redis stream", best=6, defaults=30, limit=0.6),
    exactly_once_workload("redis", "a Redis stream", at_least=0.85),
    relay_workload("rabbit", "RabbitMQ, persistent and confirmed", best=2, defaults=9, limit=0.7),
]

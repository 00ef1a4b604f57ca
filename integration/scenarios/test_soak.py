"""G12, and how soon messages arrive: an ordinary load for a long time."""

import asyncio
import contextlib
import signal
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

import psutil
from aiokafka import AIOKafkaConsumer

from integration.broker.observing import eventually
from integration.destinations.kafka import KafkaBox
from integration.destinations.received import IDENTITY
from integration.faults.processes import ChildProcess
from integration.relay import RelayPlan, running_relay

from .results import record
from .run import Run, forms

RATE = 500
CONNECTIONS = (
    "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@dataclass(frozen=True)
class Plan:
    warm_up: float
    seconds: float
    p99: float
    """Seconds from commit to consumer. The quick form leaves room for a machine that is overloaded."""
    growth: float
    """Of memory; seconds after its start a process still grows."""


class Sizes(NamedTuple):
    memory: int
    connections: int
    sockets: int
    threads: int
    tasks: int


@forms(Plan(3.0, 7.0, 5.0, 0.15), Plan(60.0, 600.0, 0.25, 0.05), timeout=900)
async def test_500_rows_a_second(run: Run, topic: KafkaBox, database_url: str, plan: Plan) -> None:
    relay = RelayPlan.to(topic, database_url=database_url)
    load = run.load(10)
    async with running_relay(relay) as child, _arrival_times(topic) as arrived:
        async with load.flowing(RATE):
            await asyncio.sleep(plan.warm_up)
            before = await _sizes(run, child)
            await asyncio.sleep(plan.seconds)
            after = await _sizes(run, child)
        await run.drained(within=30)
        async with asyncio.timeout(10):
            while len(arrived) < len(load.committed_at):
                await asyncio.sleep(0.05)
    delays = [arrived[identity] - committed for identity, committed in load.committed_at.items()]
    p99 = statistics.quantiles(delays, n=100)[98]
    growth = after.memory / before.memory - 1
    findings = await run.audit(await topic.read())
    record(
        findings,
        "Soak",
        load=f"{RATE} rows/s for {plan.warm_up + plan.seconds:g} s",
        faults="none",
        besides=f"commit to consumer p50 {statistics.median(delays) * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms; "
        f"memory {before.memory / 2**20:.0f} MiB, {growth:+.1%}; {after.connections} connections to PostgreSQL, "
        f"{after.threads} threads, {after.tasks} tasks",
    )
    findings.check()
    assert p99 < plan.p99
    assert growth < plan.growth
    # A hand-over and a connection to Kafka come and go; what leaks grows with the load.
    assert all(now <= then + 4 for then, now in zip(before[1:], after[1:], strict=True)), (before, after)


async def _sizes(run: Run, child: ChildProcess) -> Sizes:
    process = psutil.Process(child.pid)
    reports = [line for line in child.lines if line.startswith("tasks")]
    child.send_signal(signal.SIGUSR1)
    lines = await eventually(lambda: _later_reports(child, len(reports)))
    [database] = await run.table.query(CONNECTIONS)
    return Sizes(
        process.memory_info().rss,
        database.n,
        len(process.net_connections("tcp")),
        process.num_threads(),
        int(lines[-1].split()[1]),
    )


def _later_reports(child: ChildProcess, seen: int) -> list[str]:
    return [line for line in child.lines if line.startswith("tasks")][seen:]


@asynccontextmanager
async def _arrival_times(topic: KafkaBox) -> AsyncIterator[dict[str, float]]:
    """When a plain consumer had each message first, by this process's clock."""
    arrived: dict[str, float] = {}
    consumer = AIOKafkaConsumer(topic.name, bootstrap_servers=topic.url, auto_offset_reset="earliest")
    await consumer.start()

    async def consume() -> None:
        async for message in consumer:
            arrived.setdefault(dict(message.headers)[IDENTITY].decode(), time.monotonic())

    consuming = asyncio.create_task(consume())
    try:
        yield arrived
    finally:
        consuming.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await consuming
        await consumer.stop()

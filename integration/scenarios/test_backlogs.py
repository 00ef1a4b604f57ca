"""G5, G12: many rows wait, while the destination is down and when it is back."""

import asyncio
import math
import time
from dataclasses import dataclass

import psutil
import pytest

from integration.destinations.kafka import KafkaBox
from integration.faults.processes import ChildProcess
from integration.faults.proxy import TcpProxy
from integration.relay import RelayPlan, log_records, running_relay

from .results import record
from .run import Run, forms

CPU_SHARE = 0.10
"""Of one core, while there is nothing to do but to ask whether the destination is back."""
MEMORY_GROWTH = 0.10


@dataclass(frozen=True)
class Draining:
    """How a backlog went away. Memory in bytes: the most in the first fifth of the time, and the most afterwards."""

    seconds: float
    warm: int
    most: int

    def __str__(self) -> str:
        return f"memory {self.warm / 2**20:.0f} MiB in the first fifth, then at most {self.most / 2**20:.0f} MiB"


async def draining(run: Run, child: ChildProcess, *, within: float) -> Draining:
    process, began = psutil.Process(child.pid), time.monotonic()
    sizes = [process.memory_info().rss]
    while not await run.is_empty():
        sizes.append(process.memory_info().rss)
        assert time.monotonic() - began < within
        await asyncio.sleep(0.05)
    first = len(sizes) // 5 + 1
    return Draining(time.monotonic() - began, max(sizes[:first]), max(sizes))


@dataclass(frozen=True)
class Outage:
    rows: int
    seconds: float


@forms(Outage(100_000, 60.0), Outage(100_000, 600.0), timeout=900)
async def test_a_destination_is_down_while_100_000_rows_wait_and_then_they_are_carried_with_flat_memory(
    run: Run, topic: KafkaBox, database_url: str, kafka_proxy: TcpProxy, plan: Outage
) -> None:
    relay = RelayPlan.to(topic, url=kafka_proxy.address, database_url=database_url)
    load = run.load(2, keys=1000)
    async with running_relay(relay) as child:
        await load.backlog(1)
        await run.drained(within=30)
        kafka_proxy.refuse()
        kafka_proxy.reset()
        began, logged = time.monotonic(), len(log_records(child))
        await load.backlog(plan.rows)
        share = await _processor_share(child, seconds=max(10.0, plan.seconds - (time.monotonic() - began)))
        lasted, lines = time.monotonic() - began, log_records(child)[logged:]
        [waiting] = await run.table.query(
            "SELECT count(*) AS rows, max(attempts_count) AS attempts, count(failed_at) AS failed FROM outbox"
        )
        await kafka_proxy.restore()
        drained = await draining(run, child, within=60)
    findings = await run.audit(await topic.read())
    record(
        findings,
        "The destination down while rows wait",
        load=f"{plan.rows:,} rows waiting",
        faults=f"Kafka unreachable for {lasted:.0f} s",
        recovered=drained.seconds,
        besides=f"{share:.1%} of one core, {len(lines)} log lines, attempts at most {waiting.attempts}; {drained}",
    )
    assert (waiting.rows, waiting.attempts, waiting.failed) == (plan.rows, 0, 0)
    assert share < CPU_SHARE
    assert len(lines) <= math.ceil(lasted / 60), lines
    assert drained.most < drained.warm * (1 + MEMORY_GROWTH)
    findings.check()


async def _processor_share(child: ChildProcess, *, seconds: float) -> float:
    """The part of one core that the child takes, measured for so long."""
    process = psutil.Process(child.pid)
    before, began = process.cpu_times(), time.monotonic()
    await asyncio.sleep(seconds)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / (time.monotonic() - began)


@pytest.mark.long
@pytest.mark.timeout(1500)
async def test_a_million_rows_are_carried_with_flat_memory(run: Run, topic: KafkaBox, database_url: str) -> None:
    """The ordinary run has the 100,000 rows of the test above."""
    rows = 1_000_000
    relay = RelayPlan.to(topic, database_url=database_url)
    await run.load(3, keys=1000).bulk(rows)
    async with running_relay(relay) as child:
        drained = await draining(run, child, within=600)
    findings = await run.audit(await topic.read())
    record(
        findings,
        "A backlog is carried by one relay",
        load=f"{rows:,} rows waiting",
        faults="none",
        besides=f"{rows / drained.seconds:,.0f} rows/s; {drained}",
    )
    assert drained.most < drained.warm * (1 + MEMORY_GROWTH)
    findings.check()

"""What many consumers of one process cost while nothing happens, and how soon each of them has a row."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contest import OURS, Bench, Figures, Goal, Workload
from benchmarks.destinations import KafkaTopic
from benchmarks.processes import Program, program
from benchmarks.workloads.relay import backlog, connection

FORWARDERS = (1, 10, 50, 200)
SUBSCRIBERS = 170
SETTLE_SECONDS = 4.0
"""After the start and after a burst: what was looked up, or is still open, comes to rest."""
IDLE_SECONDS = 10.0
WAKE_UPS = 10
ROUNDS = 3
"""Bursts; the median counts."""

CONNECTIONS = "connections to Kafka"
TRANSACTIONS = "transactions/s"
CPU = "% of a core"
BURST = "a row in each queue, ms until all have left"
WAKE_UP = "a row in one queue, ms until it has left"

COMMITS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
ROW = """
    WITH made AS (
        INSERT INTO outbox (queue, idempotency_key, payload, headers)
        SELECT queue, 'id-' || gen_random_uuid(), 'x', '{}' FROM unnest(CAST($1 AS text[])) AS queue
        RETURNING queue
    )
    SELECT pg_notify('outbox:outbox', queue) FROM made
"""


def connections_to(process_id: int, port: int) -> int:
    """Count the TCP connections of a process to a port; 0 where the system does not say."""
    folder = Path(f"/proc/{process_id}")
    if not folder.exists():
        return 0
    own = set()
    for descriptor in (folder / "fd").iterdir():
        try:
            own.add(str(descriptor.readlink()))
        except FileNotFoundError:
            continue
    lines = [line.split() for name in ("tcp", "tcp6") for line in (folder / "net" / name).read_text().splitlines()[1:]]
    peers = [line[2].rpartition(":")[2] for line in lines if f"socket:[{line[9]}]" in own and line[3] == "01"]
    return sum(int(peer, 16) == port for peer in peers)


async def until_empty(table: Any, queues: Sequence[str]) -> float:
    """Write a row into each queue; returns the seconds until all have left."""
    await table.fetch(ROW, list(queues))
    began = time.perf_counter()
    while await table.fetchval("SELECT count(*) FROM outbox"):
        await asyncio.sleep(0.001)
    return time.perf_counter() - began


async def idle(crowd: Program, table: Any) -> Figures:
    """Look at a process that has nothing to do."""
    await asyncio.sleep(SETTLE_SECONDS)
    began, before, cpu = time.perf_counter(), await table.fetchval(COMMITS), (await crowd.ask("cpu"))["cpu"]
    await asyncio.sleep(IDLE_SECONDS)
    seconds = time.perf_counter() - began
    # The counters of a session are shown a second after its transaction.
    return {
        TRANSACTIONS: (await table.fetchval(COMMITS) - before) / seconds,
        CPU: 100 * ((await crowd.ask("cpu"))["cpu"] - cpu) / seconds,
    }


async def run_many(bench: Bench, contestant: str, forwarders: int, subscribers: int) -> Figures:
    """Let consumers rest, and then give one of them a row, and then each."""
    python = bench.python(contestant)
    queues = [f"queue-{number}" for number in range(forwarders or subscribers)]
    with bench.servers.database(await backlog(bench, contestant, 0)) as url:
        async with (
            KafkaTopic.create(bench.servers) as topic,
            connection(url) as table,
            program(
                "benchmarks.programs.many",
                python,
                database=url,
                address=topic.address,
                topic=topic.name,
                forwarders=queues if forwarders else [],
                subscribers=queues if subscribers else [],
            ) as crowd,
        ):
            await crowd.hear()
            figures = await idle(crowd, table)
            if forwarders:
                figures[CONNECTIONS] = connections_to(crowd.process.pid, int(topic.address.rpartition(":")[2]))
                wake_ups = []
                for number in range(WAKE_UPS):
                    wake_ups.append(await until_empty(table, [queues[number % len(queues)]]))
                    await asyncio.sleep(0.3)
                figures[WAKE_UP] = 1000 * statistics.median(wake_ups)
                bursts = []
                for _ in range(ROUNDS):
                    bursts.append(await until_empty(table, queues))
                    await asyncio.sleep(SETTLE_SECONDS)
                figures[BURST] = 1000 * statistics.median(bursts)
            await crowd.ask("stop")
    return figures


def _workload(*, forwarders: int = 0, subscribers: int = 0, goals: Sequence[tuple[str, float]] = ()) -> Workload:
    name = f"{forwarders} forwarders to Kafka" if forwarders else f"{subscribers} subscribers"
    return Workload(
        name=f"many-{forwarders or subscribers}",
        title=f"{name} in one process, idle",
        unit=CPU,
        contestants=[OURS],
        run=lambda bench, contestant: run_many(bench, contestant, forwarders, subscribers),
        goals=[Goal(what=f"{name}: {what}", of=(OURS, what), at_most=most) for what, most in goals],
        once=True,
    )


WORKLOADS = [
    *(_workload(forwarders=count) for count in FORWARDERS[:-1]),
    _workload(forwarders=FORWARDERS[-1], goals=[(CONNECTIONS, 12), (TRANSACTIONS, 20), (CPU, 2), (BURST, 400)]),
    _workload(subscribers=SUBSCRIBERS, goals=[(TRANSACTIONS, 10), (CPU, 1)]),
]

"""Several relay processes on one table, and a very long backlog."""

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.contest import OURS, Bench, CheckFailed, Figures, Goal, Workload
from benchmarks.destinations import DESTINATIONS
from benchmarks.messages import BODY_BYTES, HEADERS, KEYS, QUEUE
from benchmarks.processes import program
from benchmarks.workloads.relay import MODULES, RATE, backlog, check, connection, measure, stop

PROCESSES = {"1 process": 1, "2 processes": 2, "4 processes": 4}

MEMORY = "MiB, at most"
GROWTH = "memory, end against 10 %"
SLOWDOWN = "rate, last 10 % against first"

FILL = f"""
    INSERT INTO outbox (queue, key, idempotency_key, payload, headers)
    SELECT '{QUEUE}', CASE WHEN i % 2 = 1 THEN 'customer-' || i / 2 % {KEYS} END, gen_random_uuid(),
        convert_to(rpad('{{"number":' || i || ',"note":"', {BODY_BYTES} - 2, 'n') || '"}}', 'UTF8'), $2::jsonb
    FROM generate_series(0, $1::integer - 1) AS i
"""  # noqa: S608 - our own constants


async def run_processes(bench: Bench, contestant: str) -> Figures:
    """Let several processes carry the backlog to Kafka together; each key must keep its order."""
    count = bench.sizes.backlog
    with bench.servers.database(await backlog(bench, OURS, count)) as url:
        async with AsyncExitStack() as stack:
            destination = await stack.enter_async_context(DESTINATIONS["kafka"](bench.servers))
            table = await stack.enter_async_context(connection(url))
            where = {"database": url, "kind": "kafka", "address": destination.address, "name": destination.name}
            relays = [
                await stack.enter_async_context(program(MODULES[OURS], Path(sys.executable), **where))
                for _ in range(PROCESSES[contestant])
            ]
            await asyncio.gather(*(relay.hear() for relay in relays))
            rate = await measure(relays, destination, table, count, window=60)
            await stop(relays)
            await check(destination, table, count, keeps_order=True)
    return {RATE: rate}


async def run_drain(bench: Bench, _contestant: str) -> Figures:
    """Carry very many messages to Kafka, and look at memory and speed on the way."""
    count = bench.sizes.million
    with bench.servers.database(await backlog(bench, OURS, 0)) as url:
        async with connection(url) as table:
            headers = '{"content-type": "application/json", "correlation_id": "drain"'
            headers += "".join(f', "{name}": "{value}"' for name, value in HEADERS.items()) + "}"
            await table.execute(FILL, count, headers, timeout=300)
            await table.execute("VACUUM (ANALYZE) outbox", timeout=300)
        async with (
            DESTINATIONS["kafka"](bench.servers) as destination,
            program(
                MODULES[OURS],
                Path(sys.executable),
                database=url,
                kind="kafka",
                address=destination.address,
                name=destination.name,
            ) as relay,
        ):
            await relay.hear()
            await relay.say("go")
            looks: list[tuple[float, int, int]] = []
            began = time.perf_counter()
            while not looks or looks[-1][1] < count:
                arrived = await destination.count()
                looks.append((time.perf_counter(), arrived, relay.resident_bytes()))
                await asyncio.sleep(0.02)
            await stop([relay])
            async with connection(url) as table:
                left = await table.fetchval("SELECT count(*) FROM outbox")
            if (arrived := await destination.count()) != count or left:
                raise CheckFailed(f"{arrived} messages arrived and {left} are left, of {count}")
    tenth = count // 10
    first_arrival = next(when for when, arrived, _ in looks if arrived)
    after = {share: next(look for look in looks if look[1] >= share * tenth) for share in (1, 9, 10)}
    return {
        RATE: count / (after[10][0] - began),
        MEMORY: max(resident for _, _, resident in looks) / 1024**2,
        GROWTH: max(resident for _, arrived, resident in looks if arrived >= tenth) / after[1][2],
        SLOWDOWN: (after[1][0] - first_arrival) / (after[10][0] - after[9][0]),
    }


WORKLOADS = [
    Workload(
        name="processes",
        title="Relay to Kafka by 1, 2 and 4 processes on one table",
        unit=RATE,
        contestants=list(PROCESSES),
        run=run_processes,
        goals=[
            Goal(what=f"{name} against one", of=(name, RATE), to=("1 process", RATE), at_least=1.0)
            for name in PROCESSES
            if name != "1 process"
        ],
    ),
    Workload(
        name="drain",
        title="Relay of 1,000,000 messages to Kafka",
        unit=RATE,
        contestants=[OURS],
        run=run_drain,
        goals=[
            Goal(what=GROWTH, of=(OURS, GROWTH), at_most=1.1),
            Goal(what=SLOWDOWN, of=(OURS, SLOWDOWN), at_least=0.8),
        ],
        once=True,
    ),
]

"""From the return of commit to a Kafka consumer, at 100 messages a second on an idle machine."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer

from benchmarks.contest import BEST, DEFAULTS, LIMIT, OURS, Bench, CheckFailed, Figures, Goal, Workload
from benchmarks.destinations import DESTINATIONS, Destination
from benchmarks.processes import program
from benchmarks.workloads.relay import MODULES, SETTINGS, backlog, stop

RATE = 100
WARM_UP = 50
"""Messages at the beginning that do not count: connections are opened, plans are made."""
ARRIVAL_SECONDS = 30.0

FOLLOWERS = MODULES | {LIMIT: "benchmarks.limit.follow"}

MEDIAN = "p50, ms"
TAIL = "p99, ms"


@asynccontextmanager
async def arrivals(destination: Destination) -> AsyncIterator[dict[int, float]]:
    """Note when each message arrives first."""
    times: dict[int, float] = {}
    async with AIOKafkaConsumer(
        destination.name, bootstrap_servers=destination.address, auto_offset_reset="earliest", enable_auto_commit=False
    ) as consumer:

        async def read() -> None:
            async for record in consumer:
                times.setdefault(json.loads(record.value or b"")["number"], time.monotonic())

        reading = asyncio.create_task(read())
        try:
            yield times
        finally:
            reading.cancel()
            await asyncio.wait([reading])


async def run_latency(bench: Bench, contestant: str) -> Figures:
    """Publish at an even pace, relay, consume."""
    python = bench.python(contestant)
    pace = {"seconds": bench.sizes.latency_seconds, "rate": RATE}
    with bench.servers.database(await backlog(bench, contestant, 0)) as url:
        async with (
            DESTINATIONS["kafka"](bench.servers) as destination,
            program("benchmarks.programs.trickle", python, database=url, **pace) as publisher,
            program(
                FOLLOWERS[contestant],
                python,
                database=url,
                kind="kafka",
                address=destination.address,
                name=destination.name,
                settings=SETTINGS.get(contestant, {}),
            ) as relay,
            arrivals(destination) as times,
        ):
            await asyncio.gather(publisher.hear(), relay.hear())
            await relay.say("go")
            commits = (await publisher.ask("go"))["commits"]
            deadline = time.monotonic() + ARRIVAL_SECONDS
            while len(times) < len(commits):
                if time.monotonic() > deadline:
                    raise CheckFailed(f"{len(times)} of {len(commits)} messages arrived")
                await asyncio.sleep(0.05)
            await stop([relay])
    taken = sorted((times[number] - commits[number]) * 1000 for number in range(WARM_UP, len(commits)))
    return {MEDIAN: taken[len(taken) // 2], TAIL: taken[int(len(taken) * 0.99)]}


WORKLOADS = [
    Workload(
        name="latency",
        title="From commit to a Kafka consumer, 100 messages/s",
        unit="ms",
        contestants=[OURS, LIMIT, BEST, DEFAULTS],
        run=run_latency,
        goals=[
            Goal(what=f"{name} against the {other}", of=(OURS, name), to=(other, name), at_most=0.5)
            for other in (BEST, DEFAULTS)
            for name in (MEDIAN, TAIL)
        ],
    )
]

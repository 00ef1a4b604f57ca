"""How many connections to PostgreSQL a busy process has at most: 5 subscribers with 8 workers each, 3 relays."""

import asyncio
import time

from benchmarks.contest import DEFAULTS, OURS, Bench, Figures, Goal, Workload
from benchmarks.processes import program, run_program
from benchmarks.workloads.relay import connection

SUBSCRIBERS = [f"subscriber-{number}" for number in range(5)]
RELAYS = [f"relay-{number}" for number in range(3)]
WORKERS = 8
MESSAGES = 2_000
SECONDS = 3.0

CONNECTIONS = "connections at most"
COUNT = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


async def run_connections(bench: Bench, contestant: str) -> Figures:
    """Look at the server while all queues have work."""
    python = bench.python(contestant)
    with bench.servers.database() as url, bench.servers.redis.key() as name:
        queues = [*SUBSCRIBERS, *RELAYS]
        await run_program("benchmarks.programs.fill", python, database=url, count=MESSAGES, queues=queues)
        options = {"subscribers": SUBSCRIBERS, "relays": RELAYS, "workers": WORKERS, "name": name}
        async with (
            connection(url) as table,
            program(
                "benchmarks.programs.crowd", python, database=url, address=bench.servers.redis.url, **options
            ) as crowd,
        ):
            await crowd.hear()
            most, deadline = 0, time.monotonic() + SECONDS
            while time.monotonic() < deadline:
                most = max(most, await table.fetchval(COUNT))
                await asyncio.sleep(0.005)
            await crowd.ask("stop")
    return {CONNECTIONS: most}


WORKLOADS = [
    Workload(
        name="connections",
        title="Connections of a process with 5 subscribers x 8 workers and 3 relays",
        unit=CONNECTIONS,
        contestants=[OURS, DEFAULTS],
        run=run_connections,
        goals=[Goal(what=CONNECTIONS, of=(OURS, CONNECTIONS), at_most=12)],
        once=True,
    )
]

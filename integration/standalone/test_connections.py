"""Connections to PostgreSQL: many databases in one process, and most of them idle."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field

import psutil
import psycopg
import pytest
from sqlalchemy import make_url

from integration.broker.observing import eventually
from integration.destinations.base import Box
from integration.faults.processes import ChildProcess
from integration.servers.postgres import PostgresServer

from .conftest import Write, running

NAME = "faststream-outbox relay"
# Until looks are rare and surveys have ended.
SETTLE_SECONDS = 28.0
IDLE_SECONDS = 16.0
SAMPLES_APART = 0.05

SEEN = f"SELECT datname, count(*) FROM pg_stat_activity WHERE application_name = '{NAME}' GROUP BY 1"
OPENED = "SELECT sum(sessions) FROM pg_stat_database WHERE datname LIKE 'outbox_test_%'"
PUBLISH = """
    WITH published AS (
        INSERT INTO outbox (queue, idempotency_key, payload)
        SELECT 'orders', current_database() || n, '{}' FROM generate_series(1, %s) AS n RETURNING queue
    )
    SELECT pg_notify('outbox:outbox', queue) FROM published GROUP BY queue
"""


@dataclass
class Watch:
    """How many connections the relay had, at each look."""

    samples: list[Counter[str]] = field(default_factory=list)

    @property
    def totals(self) -> list[int]:
        return [sum(sample.values()) for sample in self.samples]


@asynccontextmanager
async def watching(url: str) -> AsyncIterator[Watch]:
    watch = Watch()

    async def look() -> None:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            while True:
                rows = await (await connection.execute(SEEN)).fetchall()
                watch.samples.append(Counter(dict(rows)))
                await asyncio.sleep(SAMPLES_APART)

    task = asyncio.create_task(look())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def tenants(postgres_server: PostgresServer, request: pytest.FixtureRequest) -> Iterator[list[str]]:
    with ExitStack() as stack:
        yield [plain(stack.enter_context(postgres_server.database())) for _ in range(request.param)]


def file_of(tenants: list[str], box: Box, most: int) -> str:
    databases = "".join(
        f"[databases.t{number}]\nurl = '{url}'\n[[databases.t{number}.forwarders]]\n"
        # As those of 100 forwarders are by themselves.
        f"queues = 'orders'\nto = '{box.url}'\nstream = '{box.name}'\n"
        "min_fetch_interval = 10\nmax_fetch_interval = 20\nlanes = 1\n"
        for number, url in enumerate(tenants)
    )
    return f"[connections]\nmost = {most}\n[http]\nport = 0\n{databases}"


def publish(url: str, count: int) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(PUBLISH, [count])


@pytest.mark.parametrize(
    "tenants",
    [
        pytest.param(12, id="quick"),
        pytest.param(100, id="long", marks=[pytest.mark.long, pytest.mark.timeout(400)]),
    ],
    indirect=True,
)
async def test_idle_databases_have_the_listening_connection_and_no_other(
    tenants: list[str], postgres_server: PostgresServer, box: Box, write: Write
) -> None:
    count = len(tenants)
    most = count * 3 // 2
    administrator = plain(postgres_server.url.render_as_string(hide_password=False))
    async with (
        watching(administrator) as watch,
        running(write(file_of(tenants, box, most)), timeout=120) as relay,
    ):
        await eventually(lambda: _all_listen(watch, count), within=60)
        # The looks become rarer, and what the start has opened is closed.
        await asyncio.sleep(SETTLE_SECONDS)

        idle = len(watch.samples)
        opened, began, cpu = await _opened(administrator), time.monotonic(), _cpu(relay)
        await asyncio.sleep(IDLE_SECONDS)
        seconds = time.monotonic() - began
        rate = (await _opened(administrator) - opened) / seconds
        totals = watch.totals[idle:]
        print(
            f"{count} idle databases: connections {min(totals)} to {max(totals)}, median {statistics.median(totals)}; "
            f"{rate:.1f} opened a second; {(_cpu(relay) - cpu) / seconds:.0%} of a core"
        )
        # Now and then it looks; between the looks there is one connection to each.
        shares = Counter(held for sample in watch.samples[idle:] for held in sample.values())
        assert shares[1] / sum(shares.values()) > 0.8, shares

        began = time.monotonic()
        await asyncio.to_thread(publish, tenants[0], 1)
        # Long before the next look.
        await box.received(1, within=5)
        print(f"one message of an idle database: {time.monotonic() - began:.2f} s")

        began = time.monotonic()
        await asyncio.gather(*(asyncio.to_thread(publish, url, 20) for url in tenants[1:]))
        await box.received(1 + 20 * (count - 1), within=60)
        print(f"20 messages of each of the others: {time.monotonic() - began:.2f} s")
        assert await relay.terminate(60) == 0
    assert max(watch.totals) <= most
    print(f"at most {max(watch.totals)} connections at once, of {most}")


def _all_listen(watch: Watch, count: int) -> bool:
    return bool(watch.samples) and len(watch.samples[-1]) == count


async def _opened(url: str) -> int:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        row = await (await connection.execute(OPENED)).fetchone()
        assert row is not None
        return int(row[0])


def _cpu(relay: ChildProcess) -> float:
    times = psutil.Process(relay.pid).cpu_times()
    return float(times.user + times.system)

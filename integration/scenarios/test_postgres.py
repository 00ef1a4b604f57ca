"""G2, G3, G4, G9: PostgreSQL is restarted, read-only, full, or another, under load."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass

import asyncpg
import pytest
from sqlalchemy import MetaData, Table, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from faststream_outbox import OutboxBroker
from integration.conftest import enter
from integration.destinations.redis import StreamBox
from integration.faults.proxy import TcpProxy
from integration.ledger.ledger import Findings
from integration.relay import RelayPlan, running_relay
from integration.servers.postgres import EmbeddedPostgres, running_embedded
from integration.servers.process import LOOPBACK
from integration.servers.standby import EmbeddedStandby

from .results import record
from .run import Run, forms

RATE = 300
RELAYS = 2
BATCH_SIZE = 50
LANES = 2
MAX_CONNECTIONS = 30


@pytest.fixture
def primary(metadata: MetaData) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL for this test alone."""
    with ExitStack() as stack:
        make = lambda folder: EmbeddedPostgres(folder, max_connections=str(MAX_CONNECTIONS))  # noqa: E731 - one line
        server = enter(stack, running_embedded(make))
        stack.enter_context(server.template(metadata))
        yield server


class Place:
    """A database behind a proxy, relays on it, and their destination."""

    def __init__(self, server: EmbeddedPostgres, url: str, proxy: TcpProxy, run: Run, stream: StreamBox) -> None:
        self.server = server
        self.url = url
        self.proxy = proxy
        self.run = run
        self.stream = stream

    async def execute(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as the administrator, around the proxy."""
        connection = await asyncpg.connect(
            host=LOOPBACK, port=self.server.port.number, user="postgres", database=database
        )
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def terminate_all(self) -> None:
        await self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'outbox_test%'")


@asynccontextmanager
async def _place(primary: EmbeddedPostgres, outbox_table: Table, stream: StreamBox) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        url = stack.enter_context(primary.database())
        proxy = await stack.enter_async_context(TcpProxy(LOOPBACK, primary.port.number))
        proxied = make_url(url).set(host=LOOPBACK, port=proxy.port).render_as_string(hide_password=False)
        # Without a pool: who looks on must not find connections that broke with the server.
        engine = create_async_engine(proxied, connect_args={"timeout": 5}, poolclass=NullPool)
        stack.push_async_callback(engine.dispose)
        run = Run(engine, outbox_table)
        await run.book.open()
        relay = RelayPlan.to(stream, database_url=proxied, options={"batch_size": BATCH_SIZE, "lanes": LANES})
        for _ in range(RELAYS):
            await stack.enter_async_context(running_relay(relay))
        yield Place(primary, url, proxy, run, stream)


@dataclass(frozen=True)
class Plan:
    seconds: float
    """Of being read-only, and of being out of connections."""


Fault = Callable[[Place, Plan], Awaitable[None]]


async def terminated_connections(place: Place, plan: Plan) -> None:
    await place.terminate_all()


async def restart(place: Place, plan: Plan) -> None:
    await asyncio.to_thread(place.server.stop)
    await asyncio.to_thread(place.server.start)


async def crash(place: Place, plan: Plan) -> None:
    await asyncio.to_thread(lambda: place.server.stop(crash=True))
    await asyncio.to_thread(place.server.start)


async def read_only(place: Place, plan: Plan) -> None:
    await place.execute("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    await asyncio.sleep(plan.seconds)
    await place.execute(
        "SET default_transaction_read_only = off",
        "ALTER SYSTEM RESET default_transaction_read_only",
        "SELECT pg_reload_conf()",
    )


async def out_of_connections(place: Place, plan: Plan) -> None:
    """All that ordinary users may have are taken by somebody else when the relays' are terminated."""
    taken: list[asyncpg.Connection] = []
    until = time.monotonic() + plan.seconds
    try:
        await place.terminate_all()
        while time.monotonic() < until:
            try:
                taken.append(
                    await asyncpg.connect(
                        host=LOOPBACK, port=place.server.port.number, user="stranger", database="postgres"
                    )
                )
            except asyncpg.PostgresError:
                await asyncio.sleep(0.02)
    finally:
        for connection in taken:
            await connection.close()


FAULTS: list[Fault] = [terminated_connections, restart, crash, read_only, out_of_connections]


@forms(Plan(1.5), Plan(20.0), timeout=600)
async def test_a_database_that_restarts_is_read_only_and_runs_out_of_connections(
    primary: EmbeddedPostgres, outbox_table: Table, stream: StreamBox, plan: Plan
) -> None:
    recovered = 0.0
    primary.execute("CREATE ROLE stranger LOGIN")
    async with _place(primary, outbox_table, stream) as place:
        async with place.run.load(3).flowing(RATE):
            for fault in FAULTS:
                await asyncio.sleep(1.0)
                await fault(place, plan)
                recovered = max(recovered, await _recovered(place))
        findings = await _judge(place)
    record(
        findings,
        "PostgreSQL away",
        load=f"{RATE} rows/s, {RELAYS} relays",
        faults=f"{', '.join(fault.__name__.replace('_', ' ') for fault in FAULTS)}; {plan.seconds:g} s each",
        recovered=recovered,
    )
    findings.check(repeats_at_most=len(FAULTS) * RELAYS * LANES * BATCH_SIZE)


@forms(Plan(2.0), Plan(20.0), timeout=300)
async def test_a_switch_to_a_promoted_standby(
    primary: EmbeddedPostgres, outbox_table: Table, stream: StreamBox, plan: Plan
) -> None:
    """A commit waits for the standby, as where nothing may be lost: so the book there has what was promised."""
    async with _place(primary, outbox_table, stream) as place:
        copying = running_embedded(lambda folder: EmbeddedStandby(folder, primary))
        with ExitStack() as stack:
            standby = await asyncio.to_thread(stack.enter_context, copying)
            await place.execute("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
            async with place.run.load(4).flowing(RATE):
                await asyncio.sleep(plan.seconds)
                place.proxy.refuse()
                place.proxy.reset()
                await asyncio.to_thread(primary.process.kill)
                await asyncio.to_thread(standby.promote)
                place.proxy.upstream_port = standby.port.number
                await place.proxy.restore()
                recovered = await _recovered(place)
                await asyncio.sleep(plan.seconds)
            findings = await _judge(place)
            # To be cleaned up: its commits would wait for a standby for ever.
            await asyncio.to_thread(primary.start)
            await place.execute("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
            place.proxy.upstream_port = primary.port.number
    record(
        findings,
        "PostgreSQL: a promoted standby",
        load=f"{RATE} rows/s, {RELAYS} relays",
        faults="kill -9 of the primary, synchronous standby promoted",
        recovered=recovered,
    )
    findings.check(repeats_at_most=RELAYS * LANES * BATCH_SIZE)


async def test_ping_says_no_on_a_standby_until_it_is_promoted(primary: EmbeddedPostgres, outbox_table: Table) -> None:
    with primary.database() as url, running_embedded(lambda folder: EmbeddedStandby(folder, primary)) as standby:
        there = make_url(url).set(host=LOOPBACK, port=standby.port.number)
        engine = create_async_engine(there, poolclass=NullPool)
        broker = OutboxBroker(engine, outbox_table=outbox_table)
        assert not await broker.ping(timeout=10)
        await asyncio.to_thread(standby.promote)
        assert await broker.ping(timeout=10)
        await engine.dispose()


async def _recovered(place: Place) -> float:
    """The seconds until everything is delivered that had been committed when the fault was over."""
    began = time.monotonic()
    while True:
        try:
            await place.run.caught_up(within=60)
        except (SQLAlchemyError, OSError):
            # Connections are scarce for a moment longer.
            assert time.monotonic() - began < 60
            await asyncio.sleep(0.05)
        else:
            return time.monotonic() - began


async def _judge(place: Place) -> Findings:
    await place.run.drained(within=60)
    return await place.run.audit(await place.stream.read())

"""G13: everything through PgBouncer in transaction-pooling mode, with LISTEN around it and without."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from faststream_outbox import OutboxBroker
from faststream_outbox._engine.watching import unconsumed
from faststream_outbox._store.postgres import listener
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox._store.protocol import Announcement
from integration.broker.observing import Inbox, LogLines, eventually
from integration.conftest import enter
from integration.destinations.redis import StreamBox
from integration.relay import LOG, RelayPlan, log_records, pooled_connect_args
from integration.servers.pgbouncer import PgBouncer, running_pgbouncer
from integration.servers.postgres import PostgresServer

from .fleet import Fleet
from .results import record
from .run import Run, forms

BATCH_SIZE = 50
LANES = 2


@pytest.fixture(scope="module")
def pooler(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    with ExitStack() as stack:
        yield enter(stack, running_pgbouncer(postgres_server.url))


@pytest.fixture
async def pooled_engine(pooler: PgBouncer, database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(pooler.url_of(database_url), connect_args=pooled_connect_args())
    yield engine
    await engine.dispose()


@asynccontextmanager
async def _subscriber(
    engine: AsyncEngine, outbox_table: Table, handled: list[int], log: LogLines
) -> AsyncIterator[OutboxBroker]:
    """A local subscriber through the pooler, in this process."""
    broker = OutboxBroker(engine, outbox_table=outbox_table, logger=log, listen=False)

    @broker.subscriber("local")
    async def handle(body: int) -> None:
        handled.append(body)

    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def test_a_pooler_that_is_quiet_is_not_taken_for_a_line(
    pooled_engine: AsyncEngine, engine: AsyncEngine, outbox_table: Table
) -> None:
    """With nobody else about, it gives the listener the same connection of the server each time."""
    store = PostgresStore(pooled_engine, outbox_table)
    for _ in range(3):
        async with store.listen("presence:here") as line:
            assert line is None
    async with engine.connect() as connection:
        left = await connection.execute(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"))
        assert left.scalar_one() == 0


async def test_a_commit_wakes_a_subscriber_behind_the_pooler(
    pooled_engine: AsyncEngine, outbox_table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the defaults, and polls that are far apart."""
    monkeypatch.setattr(listener, "PROBE_SECONDS", 0.5)
    log, inbox = LogLines(), Inbox()
    broker = OutboxBroker(pooled_engine, outbox_table=outbox_table, logger=log)

    @broker.subscriber("local", min_fetch_interval=60.0, max_fetch_interval=60.0)
    async def handle(body: int) -> None:
        inbox.add(body)

    await broker.start()
    try:
        await eventually(lambda: log.containing("polling instead"))
        # It looks once more when that is known, and falls asleep.
        await asyncio.sleep(0.5)
        for number in (1, 2):
            async with AsyncSession(pooled_engine) as session, session.begin():
                await broker.publish(number, queue="local", session=session)
            assert len(await inbox.wait_for(number)) == number
    finally:
        await broker.stop()


async def test_what_is_consumed_behind_the_pooler_is_announced_to_those_that_listen(
    pooled_engine: AsyncEngine, engine: AsyncEngine, outbox_table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unconsumed, "LOOK_SECONDS", 0.05)
    async with (
        asyncio.timeout(20),
        PostgresStore(engine, outbox_table).listen("presence:here") as line,
        _subscriber(pooled_engine, outbox_table, [], LogLines()),
    ):
        assert line is not None
        assert await anext(aiter(line)) == Announcement(frozenset({"local"}))


@dataclass(frozen=True)
class Plan:
    seconds: float
    kills: int


@pytest.mark.parametrize("listening", ["around it", "not at all"])
@forms(Plan(3.0, 1), Plan(30.0, 8), timeout=300)
async def test_everything_through_pgbouncer(
    run: Run,
    pooled_engine: AsyncEngine,
    pooler: PgBouncer,
    outbox_table: Table,
    database_url: str,
    stream: StreamBox,
    listening: str,
    plan: Plan,
) -> None:
    listens = listening == "around it"
    relay = RelayPlan.to(
        stream,
        database_url=pooler.url_of(database_url),
        pooled=True,
        listen_url=database_url if listens else None,
        broker_options={"listen": listens},
        options={"batch_size": BATCH_SIZE, "lanes": LANES},
    )
    through = Run(pooled_engine, outbox_table)
    handled: list[int] = []
    log = LogLines()
    async with (
        _subscriber(pooled_engine, outbox_table, handled, log) as broker,
        Fleet(relay, 2, random.Random(4)) as fleet,
    ):
        async with through.load(4).flowing(300):
            for number in range(plan.kills):
                await asyncio.sleep(plan.seconds / plan.kills)
                async with pooled_engine.begin() as connection:
                    await broker.publish(number, queue="local", session=connection)
                await fleet.kill_one()
        recovered = await run.drained(within=60)
        logged = [line for relay in fleet.relays for line in log_records(relay) if f"{LOG} INFO " not in line]
    findings = await run.audit(await stream.read())
    record(
        findings,
        f"Through PgBouncer, LISTEN {listening}",
        load=f"300 rows/s for {plan.seconds:g} s",
        faults=f"{plan.kills} kill -9",
        recovered=recovered,
    )
    assert not [*logged, *log.at_least(logging.WARNING)]
    assert sorted(handled) == list(range(plan.kills))
    findings.check(repeats_at_most=plan.kills * BATCH_SIZE * LANES)

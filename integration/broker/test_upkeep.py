"""Leases and outcomes have a connection of their own: handlers that hold the whole pool keep neither waiting."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Pool, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from faststream_outbox import OutboxBroker
from faststream_outbox._engine.handling import renewer

from .conftest import MakeBroker
from .observing import Inbox, Table, eventually

LEASE_SECONDS = 1.5
POOL = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 30}
NAME = "under test"
THEIRS = f"application_name = '{NAME}'"

MakeEngine = Callable[..., AsyncEngine]


@pytest.fixture
async def make_engine(database_url: str) -> AsyncIterator[MakeEngine]:
    """Make engines on the test's database, of which all connections have a name."""
    engines: list[AsyncEngine] = []

    def make(**options: Any) -> AsyncEngine:
        settings = {"server_settings": {"application_name": NAME}}
        engine = create_async_engine(database_url, **{"connect_args": settings} | options)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        await engine.dispose()


class Shop:
    """A broker whose handlers keep a session each until they may go; one of "short" has none, and may go before."""

    def __init__(self, broker: OutboxBroker, *, workers: int) -> None:
        self.may_go = asyncio.Event()
        self.short_may_go = asyncio.Event()
        self.begun: list[Any] = []
        self.done: list[Any] = []
        sessions = async_sessionmaker(broker.engine)

        @broker.subscriber("q", max_workers=workers, lease_ttl_seconds=LEASE_SECONDS)
        async def handle(body: Any) -> None:
            self.begun.append(body)
            if body == "short":
                await self.short_may_go.wait()
                self.done.append(body)
                return
            async with sessions() as session:
                await session.execute(text("SELECT 1"))
                await self.may_go.wait()
            self.done.append(body)


async def open_shop(broker: OutboxBroker, session: AsyncSession, *bodies: Any) -> Shop:
    """Publish, start the broker, and wait until a handler has each of the messages."""
    shop = Shop(broker, workers=len(bodies))
    await broker.publish_batch(*bodies, queue="q", session=session)
    await session.commit()
    await broker.start()
    await eventually(lambda: len(shop.begun) == len(bodies))
    return shop


async def renewals(table: Table) -> list[Any]:
    return [row.next_attempt_at for row in await table.rows()]


async def until_renewed(table: Table, *, times: int) -> None:
    """Wait until every lease in the table has been renewed so many times."""
    for _ in range(times):
        before = await renewals(table)

        async def all_later(before: list[Any] = before) -> bool:
            after = await renewals(table)
            return len(after) == len(before) and all(new > old for new, old in zip(after, before, strict=True))

        await eventually(all_later, within=10)


@pytest.mark.parametrize("listen", [True, False])
async def test_g6_handlers_that_hold_the_whole_pool_keep_their_leases(
    make_engine: MakeEngine, make_broker: MakeBroker, session: AsyncSession, table: Table, *, listen: bool
) -> None:
    mine = make_broker(make_engine(**POOL), listen=listen)
    shop = await open_shop(mine, session, 1, 2)
    # Another process that would take what is free.
    other = make_broker(make_engine(), listen=listen)
    beside = Shop(other, workers=2)
    await other.start()
    # Two leases long, of which a third is enough for each renewal.
    await until_renewed(table, times=6)
    assert beside.begun == []
    shop.may_go.set()
    await eventually(table.is_empty)
    assert sorted(shop.done) == sorted(shop.begun) == [1, 2]
    assert beside.begun == []


async def test_an_outcome_is_written_while_handlers_hold_the_whole_pool(
    make_engine: MakeEngine, make_broker: MakeBroker, session: AsyncSession, table: Table
) -> None:
    broker = make_broker(make_engine(**POOL))
    shop = await open_shop(broker, session, "long", "long", "short")
    await eventually(lambda: broker.engine.pool.checkedout() == 2)
    shop.short_may_go.set()
    await eventually(lambda: _count(table, 2))
    assert shop.done == ["short"]
    shop.may_go.set()
    await eventually(table.is_empty)


@pytest.mark.parametrize("what", ["LISTEN", "UPDATE"])
async def test_g6_a_connection_that_is_lost_comes_back_while_handlers_hold_the_whole_pool(
    make_engine: MakeEngine, make_broker: MakeBroker, session: AsyncSession, table: Table, what: str
) -> None:
    """Both that of the leases and that of the presence, without which others would free them."""
    broker = make_broker(make_engine(**POOL))
    shop = await open_shop(broker, session, 1, 2)
    await until_renewed(table, times=1)
    present = "IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')"
    where = f"{THEIRS} AND pid {'' if what == 'LISTEN' else 'NOT '}{present} AND state = 'idle'"
    [lost] = await table.query(f"SELECT pid FROM pg_stat_activity WHERE {where}")
    await table.query("SELECT pg_terminate_backend(:pid, 5000)", pid=lost.pid)
    await until_renewed(table, times=4)
    await eventually(lambda: table.count(f"{where} AND pid <> {lost.pid}", "pg_stat_activity"))
    shop.may_go.set()
    await eventually(table.is_empty)
    assert sorted(shop.begun) == [1, 2]


@pytest.mark.parametrize(
    "options",
    [{}, {"poolclass": NullPool}, {"pool_pre_ping": True}, {"isolation_level": "SERIALIZABLE"}, {"echo": True}],
    ids=["a queue", "no pool", "pinged", "serializable", "echo"],
)
async def test_it_is_a_connection_as_the_engine_makes_them_and_is_closed_at_the_stop(
    make_engine: MakeEngine, make_broker: MakeBroker, session: AsyncSession, table: Table, options: dict[str, Any]
) -> None:
    engine = make_engine(**options)
    made: list[Any] = []
    event.listen(engine.sync_engine, "do_connect", lambda *_: made.append("do_connect"))
    event.listen(engine.sync_engine, "connect", lambda *_: made.append("connect"))
    broker = make_broker(engine)
    shop = await open_shop(broker, session, 1, 2)
    await until_renewed(table, times=1)
    # One to listen, one for the probe, two of the handlers, one for leases, and those for claims.
    assert made.count("connect") == made.count("do_connect") >= 5
    # In the pool are those of the handlers; beside it one listens, and one looks after leases.
    shop.may_go.set()
    await eventually(table.is_empty)
    await broker.stop()
    in_pool = engine.pool.checkedin() if isinstance(engine.pool, AsyncAdaptedQueuePool) else 0
    assert await table.count(THEIRS, "pg_stat_activity") == in_pool


async def test_a_creator_of_the_applications_own_is_used(
    make_engine: MakeEngine, make_broker: MakeBroker, session: AsyncSession, table: Table, database_url: str
) -> None:
    dsn = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    made = 0

    async def create() -> asyncpg.Connection:
        nonlocal made
        made += 1
        return await asyncpg.connect(dsn, server_settings={"application_name": "made by hand"})

    broker = make_broker(make_engine(async_creator=create, connect_args={}, **POOL))
    shop = await open_shop(broker, session, 1, 2)
    await until_renewed(table, times=1)
    # Two in the pool, one that listens, and one for leases. Another sent the probe, and the engine's first was closed
    # again: what SQLAlchemy asks on it must be known before the one that listens is opened beside the pool.
    assert await table.count("application_name = 'made by hand'", "pg_stat_activity") == 4
    assert made == 6
    shop.may_go.set()
    await eventually(table.is_empty)


async def test_it_is_let_go_when_nothing_is_leased(
    make_engine: MakeEngine,
    make_broker: MakeBroker,
    session: AsyncSession,
    table: Table,
    inbox: Inbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(renewer, "LINGER_SECONDS", 0.2)
    engine = make_engine()
    broker = make_broker(engine)

    @broker.subscriber("q", lease_ttl_seconds=LEASE_SECONDS)
    async def handle(body: int) -> None:
        inbox.add(body)

    async def are_beside_the_pool(count: int) -> bool:
        pool: Pool = engine.pool
        assert isinstance(pool, AsyncAdaptedQueuePool)
        return await table.count(THEIRS, "pg_stat_activity") == count + pool.checkedin() + pool.checkedout()

    await broker.start()
    for number in (1, 2):
        await eventually(lambda: are_beside_the_pool(1))
        await broker.publish(number, queue="q", session=session)
        await session.commit()
        await inbox.wait_for(number)
        await eventually(lambda: are_beside_the_pool(2))
        await eventually(table.is_empty)
    await eventually(lambda: are_beside_the_pool(1))


async def test_where_the_server_has_no_connection_left_the_pool_is_used(
    make_broker: MakeBroker, session: AsyncSession, table: Table, inbox: Inbox, database_url: str
) -> None:
    """One for the pool and one to listen: that was enough, and is."""
    role = f"limited_{make_url(database_url).database}"
    await table.query(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 3")
    await table.query(f"GRANT ALL ON outbox TO {role}")
    engine = create_async_engine(make_url(database_url).set(username=role), pool_size=1, max_overflow=0)
    try:
        broker = make_broker(engine)

        @broker.subscriber("q", lease_ttl_seconds=LEASE_SECONDS)
        async def handle(body: int) -> None:
            # The probe's connection is gone by now, and the leases' is not there yet.
            await table.query(f"ALTER ROLE {role} CONNECTION LIMIT 2")
            inbox.add(body)

        await broker.publish_batch(1, 2, 3, queue="q", session=session)
        await session.commit()
        await broker.start()
        await inbox.wait_for(3)
        await eventually(table.is_empty)
        await broker.stop()
    finally:
        await engine.dispose()
        await table.query(f"DROP OWNED BY {role}")
        await table.query(f"DROP ROLE {role}")


async def _count(table: Table, wanted: int) -> bool:
    return await table.count() == wanted

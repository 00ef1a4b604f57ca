"""G1, G3: a row is written if and only if the caller's transaction commits, with all that was said of it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from faststream import BaseMiddleware, PublishCommand
from faststream.exceptions import FeatureNotSupportedException
from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy import Table as SqlTable
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from faststream_outbox import ConfigError, OutboxBroker, Outgoing

from .conftest import MakeBroker
from .observing import LogLines, Table, eventually

SessionFactory = async_sessionmaker[AsyncSession]
Publish = Callable[[OutboxBroker, Any], Awaitable[Any]]

WAYS: dict[str, Publish] = {
    "publish": lambda broker, session: broker.publish({"n": 1}, queue="orders", session=session),
    "publish with key": lambda broker, session: broker.publish({"n": 1}, queue="orders", session=session, key="k"),
    "publish_batch": lambda broker, session: broker.publish_batch({"n": 1}, queue="orders", session=session),
    "publisher.publish": lambda broker, session: broker.publisher("orders").publish({"n": 1}, session=session),
}


@pytest.fixture(params=WAYS.values(), ids=WAYS.keys())
def publish(request: pytest.FixtureRequest) -> Publish:
    return request.param


async def test_g1_the_row_is_there_when_the_transaction_commits(
    broker: OutboxBroker, session: AsyncSession, table: Table, publish: Publish
) -> None:
    written = await publish(broker, session)
    assert await table.is_empty(), "publish must not commit"
    await session.commit()
    (row,) = await table.rows()
    assert written in (row.id, [row.id])
    assert bytes(row.payload) == b'{"n":1}'


async def test_g1_nothing_is_there_when_the_transaction_rolls_back(
    broker: OutboxBroker, session: AsyncSession, table: Table, publish: Publish
) -> None:
    await publish(broker, session)
    await session.rollback()
    await session.commit()
    assert await table.is_empty()


async def test_g1_a_savepoint_takes_its_rows_back_and_leaves_the_others(
    broker: OutboxBroker, session: AsyncSession, table: Table, publish: Publish
) -> None:
    await publish(broker, session)
    savepoint = await session.begin_nested()
    await publish(broker, session)
    await savepoint.rollback()
    await session.commit()
    assert await table.count() == 1


async def test_g1_holds_on_a_bare_connection(
    broker: OutboxBroker, engine: AsyncEngine, table: Table, publish: Publish
) -> None:
    async with engine.connect() as connection:
        await publish(broker, connection)
        await connection.rollback()
        await publish(broker, connection)
        await connection.commit()
    assert await table.count() == 1


@pytest.mark.parametrize("kind", ["session", "connection"])
async def test_g1_publish_sync_writes_in_a_synchronous_transaction(
    broker: OutboxBroker, database_url: str, table: Table, kind: str
) -> None:
    """The driver is another than the broker's, so the statements must not lean on asyncpg."""

    def work(url: URL) -> list[int | None]:
        engine = create_engine(url)
        try:
            with Session(engine) if kind == "session" else engine.connect() as session:
                broker.publish_sync({"n": 0}, queue="orders", session=session)
                session.rollback()
                ids = [
                    broker.publish_sync(
                        {"n": 1},
                        queue="orders",
                        session=session,
                        key="k",
                        headers={"h": "é"},
                        idempotency_key="one",
                        activate_in=timedelta(hours=1),
                    ),
                    broker.publish_sync({"n": 2}, queue="orders", session=session, idempotency_key="one"),
                ]
                session.commit()
                return ids
        finally:
            engine.dispose()

    first, second = await asyncio.to_thread(work, make_url(database_url).set(drivername="postgresql+psycopg"))
    (row,) = await table.rows()
    assert (row.id, second) == (first, None)
    assert (row.key, row.headers["h"], bytes(row.payload)) == ("k", "é", b'{"n":1}')
    assert timedelta(minutes=59) < row.next_attempt_at - row.created_at < timedelta(minutes=61)


async def test_the_row_holds_all_that_was_said(broker: OutboxBroker, session: AsyncSession, table: Table) -> None:
    at = datetime(2199, 5, 6, 7, 8, 9, tzinfo=UTC)
    row_id = await broker.publish(
        {"n": 1},
        queue="orders",
        session=session,
        key="clé",
        headers={"traceparent": "00-ab", "x": ""},
        correlation_id="c-1",
        idempotency_key="i-1",
        activate_at=at,
        timer_id="t-1",
    )
    await session.commit()
    (row,) = await table.rows()
    assert (row.id, row.queue, row.key, row.idempotency_key, row.timer_id) == (row_id, "orders", "clé", "i-1", "t-1")
    assert row.next_attempt_at == at
    assert row.headers == {
        "traceparent": "00-ab",
        "x": "",
        "correlation_id": "c-1",
        "content-type": "application/json",
    }
    assert (row.attempts_count, row.deliveries_count, row.failed_at) == (0, 0, None)


async def test_g3_without_a_key_of_the_caller_each_message_gets_a_uuid_that_grows(
    broker: OutboxBroker, session: AsyncSession, table: Table
) -> None:
    for _ in range(3):
        await broker.publish(b"", queue="orders", session=session)
        await asyncio.sleep(0.002)  # a UUIDv7 tells milliseconds apart
    await session.commit()
    keys = [row.idempotency_key for row in await table.rows()]
    assert keys == sorted(set(keys))
    assert all(key[14] == "7" for key in keys)


async def test_each_message_gets_a_correlation_id_and_a_batch_shares_one(
    make_broker: MakeBroker, session: AsyncSession, table: Table
) -> None:
    ids = iter(["a", "b", "c"])
    broker = make_broker(id_generator=lambda: next(ids))
    await broker.publish(b"", queue="orders", session=session)
    await broker.publish_batch(b"", b"", queue="orders", session=session)
    await broker.publisher("orders").publish(b"", session=session)
    await session.commit()
    assert [row.headers["correlation_id"] for row in await table.rows()] == ["a", "b", "b", "c"]


async def test_a_batch_keeps_its_order_and_each_message_its_own(
    broker: OutboxBroker, session: AsyncSession, table: Table
) -> None:
    ids = await broker.publish_batch(
        Outgoing({"n": 0}, key="own", headers={"x": "own", "y": "own"}, idempotency_key="i"),
        None,
        "text",
        *({"n": n} for n in range(3, 50)),
        queue="orders",
        session=session,
        key="shared",
        headers={"x": "shared"},
        activate_in=timedelta(hours=1),
    )
    await session.commit()
    rows = await table.rows()
    assert ids == [row.id for row in rows] == sorted(ids)
    assert [bytes(row.payload) for row in rows] == [b'{"n":0}', b"", b"text", *(b'{"n":%d}' % n for n in range(3, 50))]
    assert [row.key for row in rows] == ["own"] + ["shared"] * 49
    assert (rows[0].headers["x"], rows[0].headers["y"], rows[1].headers["x"]) == ("own", "own", "shared")
    assert rows[0].idempotency_key == "i"
    assert len({row.next_attempt_at for row in rows}) == 1


async def test_an_empty_batch_writes_nothing(broker: OutboxBroker, session: AsyncSession, table: Table) -> None:
    assert await broker.publish_batch(queue="orders", session=session) == []
    await session.commit()
    assert await table.is_empty()


@pytest.mark.parametrize("identity", ["idempotency_key", "timer_id"])
async def test_a_live_duplicate_is_no_row_and_no_error(
    broker: OutboxBroker, session: AsyncSession, table: Table, identity: str
) -> None:
    async def publish(queue: str = "orders", name: str = "same") -> int | None:
        return await broker.publish({}, queue=queue, session=session, **{identity: name})

    first = await publish()
    assert await publish() is None, "in the same transaction"
    await session.commit()
    assert await publish() is None, "in a later one"
    assert await publish(queue="other"), "a queue has its own names"
    assert await publish(name="other")
    await session.commit()
    assert await table.count() == 3
    await table.query("DELETE FROM outbox WHERE id = :id", id=first)
    assert await publish(), "the first one is gone"
    await session.commit()


async def test_a_duplicate_of_an_open_transaction_waits_for_its_end(
    broker: OutboxBroker, session_factory: SessionFactory, table: Table
) -> None:
    for end, expected in (("rollback", 1), ("commit", 0)):
        async with session_factory() as first, session_factory() as second:
            await broker.publish({}, queue="orders", session=first, idempotency_key=end)
            later = asyncio.create_task(broker.publish({}, queue="orders", session=second, idempotency_key=end))
            await eventually(lambda: table.count("wait_event_type = 'Lock'", "pg_stat_activity"))
            await getattr(first, end)()
            assert bool(await later) == bool(expected)
            await second.commit()
    assert await table.count() == 2


async def test_a_batch_leaves_out_its_duplicates(broker: OutboxBroker, session: AsyncSession, table: Table) -> None:
    await broker.publish("old", queue="orders", session=session, idempotency_key="a")
    bodies = [
        Outgoing("1", idempotency_key="a"),
        Outgoing("2"),
        Outgoing("3", idempotency_key="b"),
        Outgoing("4", idempotency_key="b"),
    ]
    assert len(await broker.publish_batch(*bodies, queue="orders", session=session)) == 2
    await session.commit()
    assert [bytes(row.payload) for row in await table.rows()] == [b"old", b"2", b"3"]


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int]


@pytest.fixture
async def account(engine: AsyncEngine, session_factory: SessionFactory) -> int:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with session_factory() as session, session.begin():
        session.add(Account(id=1, balance=0))
    return 1


@pytest.mark.parametrize("way", ["publish", "publish_batch"])
async def test_ids_of_one_key_follow_the_order_in_which_the_domain_row_was_locked(
    broker: OutboxBroker, session_factory: SessionFactory, table: Table, account: int, way: str
) -> None:
    """The session's change is still pending when publish is called: without a flush nobody would wait here."""

    async def deposit(session: AsyncSession, amount: int) -> None:
        # An expression: the change is made by the UPDATE and not before, and locks the row.
        (await session.get_one(Account, account)).balance = Account.balance + amount
        await getattr(broker, way)({"amount": amount}, queue="orders", session=session, key="account-1")

    async with session_factory() as first, session_factory() as second:
        await deposit(first, 1)
        waiting = asyncio.create_task(deposit(second, 2))
        await eventually(lambda: table.count("wait_event_type = 'Lock'", "pg_stat_activity"))
        assert not waiting.done()
        await first.commit()
        await waiting
        await second.commit()
    assert [bytes(row.payload) for row in await table.rows()] == [b'{"amount":1}', b'{"amount":2}']


async def test_fetch_unprocessed_looks_and_takes_nothing(
    broker: OutboxBroker, session: AsyncSession, table: Table
) -> None:
    ids = await broker.publish_batch(*({"n": n} for n in range(3)), queue="orders", session=session, headers={"h": "v"})
    await broker.publish({}, queue="others", session=session, activate_in=timedelta(hours=1), key="k")
    assert len(await broker.fetch_unprocessed(session=session)) == 4, "one's own rows before the commit too"
    await session.commit()
    await table.query("UPDATE outbox SET failed_at = now() WHERE id = :id", id=ids[1])
    rows = await broker.fetch_unprocessed(session=session, queue="orders")
    assert [row.payload for row in rows] == [b'{"n":0}', b'{"n":2}']
    assert (rows[0].queue, rows[0].headers["h"], rows[0].acquired_at) == ("orders", "v", None)
    assert rows[0].created_at.tzinfo is not None
    assert len(await broker.fetch_unprocessed(session=session, limit=1)) == 1
    assert await table.count("acquired_token IS NOT NULL OR deliveries_count > 0") == 0
    with pytest.raises(ConfigError, match="limit: must be an integer from 1 to"):
        await broker.fetch_unprocessed(session=session, limit=0)
    assert await broker.fetch_unprocessed(session=session, queue="none") == []


async def test_a_timer_is_cancelled_once_and_with_its_transaction(
    broker: OutboxBroker, session: AsyncSession, table: Table
) -> None:
    await broker.publish({}, queue="orders", session=session, timer_id="t", activate_in=timedelta(hours=1))
    await session.commit()
    assert await broker.cancel_timer(queue="orders", timer_id="t", session=session)
    await session.rollback()
    assert await table.count() == 1
    assert not await broker.cancel_timer(queue="orders", timer_id="other", session=session)
    assert not await broker.cancel_timer(queue="others", timer_id="t", session=session)
    assert await broker.cancel_timer(queue="orders", timer_id="t", session=session)
    assert not await broker.cancel_timer(queue="orders", timer_id="t", session=session)
    await session.commit()
    assert await table.is_empty()


async def test_ping_tells_whether_the_database_answers(
    broker: OutboxBroker, make_broker: MakeBroker, database_url: str
) -> None:
    assert await broker.ping(timeout=5)
    assert await broker.ping()
    nowhere = create_async_engine(make_url(database_url).set(port=1))
    assert not await make_broker(nowhere).ping(timeout=5)
    await nowhere.dispose()


async def test_ping_says_no_where_nothing_can_be_written(make_broker: MakeBroker, database_url: str) -> None:
    settings = {"server_settings": {"default_transaction_read_only": "on"}}
    reading = create_async_engine(database_url, connect_args=settings)
    assert not await make_broker(reading).ping(timeout=5)
    await reading.dispose()


async def test_request_says_why_it_cannot_be(broker: OutboxBroker) -> None:
    with pytest.raises(FeatureNotSupportedException, match="no request and reply"):
        await broker.request({}, "orders")
    with pytest.raises(FeatureNotSupportedException, match="no request and reply"):
        await broker.publisher("orders").request({})


class Stamp(BaseMiddleware[PublishCommand]):
    async def publish_scope(self, call_next: Any, cmd: PublishCommand) -> Any:
        cmd.add_headers({"stamp": f"{cmd.destination}:{len(cmd.batch_bodies)}"})
        return await call_next(cmd)


async def test_publish_middlewares_run_around_every_way_of_publishing(
    make_broker: MakeBroker, session: AsyncSession, table: Table, publish: Publish
) -> None:
    written = await publish(make_broker(middlewares=[Stamp]), session)
    await session.commit()
    (row,) = await table.rows()
    assert row.headers["stamp"] == "orders:1"
    assert written in (row.id, [row.id]), "the result passes the middlewares"


async def test_a_session_that_nobody_commits_is_told_of_in_the_log(
    make_broker: MakeBroker, engine: AsyncEngine, log: LogLines
) -> None:
    """Also by a broker that only publishes."""
    broker = make_broker(logger=log)
    async with AsyncSession(engine) as session:
        await broker.publish({}, queue="orders", session=session)
    [line] = log.at_least(logging.WARNING)
    assert "closed without commit after messages to 'orders'" in line


async def test_a_response_that_nobody_commits_is_told_of_in_the_log(
    make_broker: MakeBroker, engine: AsyncEngine, log: LogLines
) -> None:
    broker = make_broker(logger=log)

    @broker.subscriber("orders")
    async def handle(_body: dict[str, int]) -> None:
        async with AsyncSession(engine) as session:
            await broker.publish({}, queue="mails", session=session)

    await broker.start()
    async with AsyncSession(engine) as session, session.begin():
        await broker.publish({}, queue="orders", session=session)
    [line] = await eventually(lambda: log.containing("closed without commit"))
    assert "messages to 'mails'" in line


SECRET: dict[str, Any] = {"queue": "orders", "headers": {"token": "a-secret"}}
REVEALING: list[Publish] = [
    lambda broker, session: broker.publish({"password": "a-secret"}, session=session, **SECRET),
    lambda broker, session: broker.publish("a-secret", session=session, idempotency_key="i", **SECRET),
    lambda broker, session: broker.publish_batch("a-secret", session=session, **SECRET),
]


@pytest.mark.parametrize("publish", REVEALING, ids=["one", "deduplicated", "batch"])
@pytest.mark.parametrize("hides", [True, False])
async def test_an_error_of_the_database_shows_a_message_unless_the_engine_hides_parameters(
    outbox_table: SqlTable, database_url: str, publish: Publish, hides: bool
) -> None:
    engine = create_async_engine(database_url, hide_parameters=hides)
    broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None)
    try:
        async with AsyncSession(engine) as session:
            await session.execute(text("DROP TABLE outbox"))
            with pytest.raises(ProgrammingError) as caught:
                await publish(broker, session)
    finally:
        await engine.dispose()
    assert ("a-secret" in f"{caught.value} {caught.value.__cause__}") is not hides

"""G1, G3, G10: staged messages are written with their session's flush or commit, in one statement, or not at all."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from faststream import BaseMiddleware, PublishCommand
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy import Table as SqlTable
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from faststream_outbox import (
    ConfigError,
    InvalidMessageError,
    InvalidSessionError,
    NotWrittenError,
    OutboxBroker,
    StagedMessage,
)
from faststream_outbox._faststream import DefaultCodec
from faststream_outbox._store.postgres.listener import channel_of
from integration.faults.proxy import TcpProxy
from integration.servers.process import LOOPBACK

from .conftest import MakeBroker
from .observing import LogLines, Table, Traffic, eventually

Stage = Callable[..., StagedMessage]


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(default="new")


@pytest.fixture(autouse=True)
async def orders(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


@pytest.fixture
async def sync_engine(database_url: str) -> AsyncIterator[Engine]:
    """On another driver than the broker's, so that the statement must not lean on asyncpg."""
    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    yield engine
    engine.dispose()


@pytest.fixture
def stage(broker: OutboxBroker) -> Stage:
    def stage(session: Any, n: int = 1, *, queue: str = "orders", **options: Any) -> StagedMessage:
        return broker.stage({"n": n}, queue=queue, session=session, **options)

    return stage


@contextmanager
def listening(target: Any, name: str, listener: Callable[..., None]) -> Iterator[None]:
    event.listen(target, name, listener)
    try:
        yield
    finally:
        event.remove(target, name, listener)


async def bodies(table: Table) -> list[str]:
    return [bytes(row.payload).decode() for row in await table.query("SELECT payload FROM outbox ORDER BY id")]


def numbered(*numbers: int) -> list[str]:
    return [f'{{"n":{n}}}' for n in numbers]


# --- one statement, all that was said


async def test_ten_in_one_transaction_are_one_statement_in_the_order_of_the_calls(
    stage: Stage, engine: AsyncEngine, table: Table, traffic: Traffic
) -> None:
    async with AsyncSession(engine) as session, session.begin():
        session.add(Order(id=1))
        staged = [stage(session, n, queue="ab"[n % 2], key="k") for n in range(10)]
        assert [message.is_written for message in staged] == [False] * 10
        assert await table.is_empty()
    inserts = [statement for statement in traffic.statements if "INSERT INTO outbox" in statement]
    assert len(inserts) == 1
    rows = await table.rows()
    assert [row.id for row in rows] == [message.id for message in staged]
    assert [row.idempotency_key for row in rows] == [message.idempotency_key for message in staged]
    assert [bytes(row.payload).decode() for row in rows] == numbered(*range(10))
    assert [row.queue for row in rows] == ["a", "b"] * 5


async def test_each_row_holds_all_that_was_said(stage: Stage, engine: AsyncEngine, table: Table) -> None:
    at = datetime(2199, 5, 6, 7, 8, 9, tzinfo=UTC)
    async with AsyncSession(engine) as session, session.begin():
        stage(session, 1, key="k", headers={"h": "é"}, correlation_id="c", activate_at=at, timer_id="t")
        stage(session, 2, queue="mails", activate_in=timedelta(hours=1), idempotency_key="i")
        stage(session, 3)
    first, second, third = await table.rows()
    assert (first.queue, first.key, first.timer_id, first.next_attempt_at) == ("orders", "k", "t", at)
    assert (first.headers["h"], first.headers["correlation_id"]) == ("é", "c")
    assert (second.queue, second.key, second.idempotency_key, second.timer_id) == ("mails", None, "i", None)
    assert timedelta(minutes=59) < second.next_attempt_at - second.created_at < timedelta(minutes=61)
    assert (third.next_attempt_at, third.deduplicate) == (None, False)


async def test_each_queue_is_woken_once(stage: Stage, engine: AsyncEngine, outbox_table: SqlTable) -> None:
    heard: list[str] = []
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.add_listener(channel_of(outbox_table), lambda *notification: heard.append(notification[-1]))
        async with AsyncSession(engine) as session, session.begin():
            for n in range(3):
                stage(session, n, queue="orders")
                stage(session, n, queue="mails")
        await eventually(lambda: len(heard) == 2)
        await driver.fetchval("SELECT 1")
        await connection.invalidate()
    assert sorted(heard) == ["mails", "orders"]


@pytest.mark.parametrize("kind", ["Session", "scoped_session", "AsyncSession", "async_scoped_session"])
async def test_every_kind_of_session(
    stage: Stage, engine: AsyncEngine, sync_engine: Engine, table: Table, kind: str
) -> None:
    if kind in ("Session", "scoped_session"):
        plain: Any = Session(sync_engine) if kind == "Session" else scoped_session(sessionmaker(sync_engine))
        staged = [stage(plain, n, key="k", activate_in=timedelta(hours=n)) for n in (1, 2)]
        plain.commit()
        plain.close()
    else:
        factory = async_sessionmaker(engine)
        session: Any = factory() if kind == "AsyncSession" else async_scoped_session(factory, asyncio.current_task)
        staged = [stage(session, n, key="k", activate_in=timedelta(hours=n)) for n in (1, 2)]
        await session.commit()
        await session.close()
    assert [message.id for message in staged] == [row.id for row in await table.rows()]
    assert await bodies(table) == numbered(1, 2)


async def test_one_message_alone(stage: Stage, engine: AsyncEngine, table: Table) -> None:
    async with AsyncSession(engine) as session, session.begin():
        staged = stage(session)
    assert [row.id for row in await table.rows()] == [staged.id]


# --- when it is written


async def test_a_flush_writes_what_waits_behind_its_objects(stage: Stage, engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session, session.begin():
        session.add(Order(id=1))
        staged = stage(session)
        await session.flush()
        assert staged.is_written
        found = await session.execute(text("SELECT id FROM outbox"))
        assert found.scalars().all() == [staged.id]


async def test_an_empty_flush_writes_nothing_and_the_commit_does(
    stage: Stage, engine: AsyncEngine, table: Table
) -> None:
    async with AsyncSession(engine) as session:
        staged = stage(session)
        await session.flush()
        assert not staged.is_written
        await session.commit()
        assert staged.is_written
    assert await table.count() == 1


async def test_published_messages_come_before_those_that_wait(
    broker: OutboxBroker, stage: Stage, engine: AsyncEngine, table: Table
) -> None:
    async with AsyncSession(engine) as session, session.begin():
        stage(session, 1)
        await broker.publish({"n": 2}, queue="orders", session=session)
        stage(session, 3)
    assert await bodies(table) == numbered(2, 1, 3)


async def test_a_session_is_used_again(stage: Stage, engine: AsyncEngine, table: Table) -> None:
    async with AsyncSession(engine) as session:
        for n in range(3):
            stage(session, n)
            if n == 1:
                await session.rollback()
            else:
                await session.commit()
    assert await bodies(table) == numbered(0, 2)


async def test_expunged_objects_leave_the_messages(stage: Stage, engine: AsyncEngine, table: Table) -> None:
    async with AsyncSession(engine) as session, session.begin():
        session.add(Order(id=1))
        stage(session)
        session.expunge_all()
    assert (await table.count(), await table.count(name="orders")) == (1, 0)


# --- rollbacks


async def test_a_rollback_takes_all_that_waits(stage: Stage, engine: AsyncEngine, table: Table) -> None:
    async with AsyncSession(engine) as session:
        stage(session)
        await session.rollback()
        await session.commit()
    assert await table.is_empty()


async def test_a_rollback_takes_back_what_was_written(stage: Stage, engine: AsyncEngine, table: Table) -> None:
    async with AsyncSession(engine) as session:
        session.add(Order(id=1))
        staged = stage(session)
        await session.flush()
        assert staged.is_written
        await session.rollback()
        assert (staged.is_written, staged.id) == (False, None)
        await session.commit()
    assert await table.is_empty()


@pytest.mark.parametrize("flushes", [True, False], ids=["with objects", "without"])
async def test_a_savepoint_takes_its_own_along(
    stage: Stage, engine: AsyncEngine, table: Table, *, flushes: bool
) -> None:
    def order(number: int) -> None:
        if flushes:
            session.add(Order(id=number))

    async with AsyncSession(engine) as session, session.begin():
        stage(session, 1)
        order(1)
        kept = await session.begin_nested()
        stage(session, 2)
        order(2)
        lost = await session.begin_nested()
        gone = stage(session, 3)
        order(3)
        await session.flush()
        await lost.rollback()
        stage(session, 4)
        await session.flush()
        await kept.commit()
        stage(session, 5)
    assert await bodies(table) == numbered(1, 2, 4, 5)
    assert not gone.is_written


async def test_a_flush_in_a_savepoint_writes_nothing_that_its_rollback_would_take(
    stage: Stage, engine: AsyncEngine, table: Table
) -> None:
    async with AsyncSession(engine) as session, session.begin():
        staged = stage(session, 1)
        savepoint = await session.begin_nested()
        session.add(Order(id=1))
        await session.flush()
        assert not staged.is_written
        await savepoint.rollback()
    assert await bodies(table) == numbered(1)


async def test_a_savepoint_that_the_commit_finds_open(stage: Stage, sync_engine: Engine, table: Table) -> None:
    with Session(sync_engine) as session:
        outer = session.begin()
        session.add(Order(id=1))
        stage(session, 1)
        session.begin_nested()
        stage(session, 2)
        outer.commit()
    assert await bodies(table) == numbered(1, 2)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("when", ["before_flush", "before_commit"])
async def test_a_listener_stages_where_the_commit_finds_a_savepoint_open(
    stage: Stage, sync_engine: Engine, table: Table, when: str, depth: int
) -> None:
    """The only flush is that of a savepoint, which the commit releases."""
    with Session(sync_engine) as session:
        outer = session.begin()
        for _ in range(depth):
            session.begin_nested()
        session.add(Order(id=1))
        with listening(session, when, lambda session, *_: stage(session)):
            outer.commit()
    # Each savepoint has this event.
    assert await table.count() == (1 if when == "before_flush" else 1 + depth)


async def test_after_a_savepoint_is_released_the_rest_waits_for_the_flush(
    stage: Stage, sync_engine: Engine, table: Table
) -> None:
    """As in tests that roll back at the end."""
    statements: list[str] = []
    with sync_engine.connect() as connection, connection.begin(), Session(connection) as session:
        with session.begin_nested():
            stage(session, 1)
        session.add(Order(id=1))
        staged = [stage(session, n) for n in (2, 3)]
        assert not any(message.is_written for message in staged)
        with listening(connection, "before_cursor_execute", lambda *event: statements.append(event[2])):
            session.flush()
        assert all(message.is_written for message in staged)
        session.commit()
    inserts = [statement for statement in statements if "INSERT" in statement]
    assert ["INTO orders" in statement for statement in inserts] == [True, False]
    assert await bodies(table) == numbered(1, 2, 3)


async def test_a_session_that_is_closed_without_commit_warns(
    make_broker: MakeBroker, engine: AsyncEngine, table: Table, log: LogLines
) -> None:
    broker = make_broker(logger=log)
    async with AsyncSession(engine) as session:
        broker.stage({}, queue="orders", session=session)
        savepoint = await session.begin_nested()
        broker.stage({}, queue="mails", session=session)
        await savepoint.commit()
        broker.stage({}, queue="orders", session=session)
    (line,) = log.at_least(logging.WARNING)
    assert "closed without commit after messages to 'mails', 'orders' were" in line
    async with AsyncSession(engine) as session:
        broker.stage({}, queue="orders", session=session)
        await session.rollback()

    async def fail() -> None:
        async with AsyncSession(engine) as session:
            broker.stage({}, queue="orders", session=session)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await fail()
    assert len(log.at_least(logging.WARNING)) == 1
    assert await table.is_empty()


# --- domain events


@pytest.mark.parametrize("how", ["class", "session"])
@pytest.mark.parametrize("when", ["before_flush", "after_flush", "after_flush_postexec", "before_commit"])
async def test_a_listener_of_the_session_stages(
    stage: Stage, engine: AsyncEngine, table: Table, traffic: Traffic, when: str, how: str
) -> None:
    """Whether it is called before this package's own listeners, or after them."""

    def collect(session: Session, *_: Any) -> None:
        for n in range(1, 6):
            stage(session, n, key="k")

    for before in ([], [0]):
        await table.query("DELETE FROM outbox")
        traffic.statements.clear()
        async with AsyncSession(engine) as session:
            with listening(Session if how == "class" else session.sync_session, when, collect):
                session.add(Order(id=len(before)))
                for n in before:
                    stage(session, n)
                await session.commit()
        assert await bodies(table) == numbered(*before, *range(1, 6))
        inserts = [n for n, statement in enumerate(traffic.statements) if "INSERT INTO outbox" in statement]
        domain = [n for n, statement in enumerate(traffic.statements) if "INSERT INTO orders" in statement]
        assert len(inserts) <= 1 + len(before)
        assert domain[0] < inserts[0]


@pytest.mark.parametrize("twice", [False, True])
async def test_a_listener_stages_in_a_commit_with_nothing_to_flush(
    stage: Stage, engine: AsyncEngine, table: Table, traffic: Traffic, *, twice: bool
) -> None:
    def collect(session: Session) -> None:
        for n in range(3):
            stage(session, n)

    async with AsyncSession(engine) as session:
        with listening(session.sync_session, "before_commit", collect):
            await session.commit()
            if twice:
                await session.commit()
    assert await bodies(table) == numbered(*([0, 1, 2] * (1 + twice)))
    assert len([each for each in traffic.statements if "INSERT INTO outbox" in each]) == 1 + twice


async def test_a_listener_stages_in_a_flush_that_then_has_no_work(
    stage: Stage, engine: AsyncEngine, table: Table
) -> None:
    def collect(session: Session, *_: Any) -> None:
        session.expunge_all()
        stage(session)

    async with AsyncSession(engine) as session:
        with listening(session.sync_session, "before_flush", collect):
            session.add(Order(id=1))
            await session.commit()
    assert (await table.count(), await table.count(name="orders")) == (1, 0)


async def test_a_commit_that_a_listener_has_stopped_is_tried_again(
    stage: Stage, engine: AsyncEngine, table: Table
) -> None:
    def refuse(_session: Session) -> None:
        raise ValueError("not yet")

    unused = create_async_engine(engine.url, poolclass=NullPool)
    async with AsyncSession(unused) as session:
        session.add(Order(id=1))
        # There is no connection yet, and here nothing can wait for one.
        with listening(session.sync_session, "before_commit", refuse), pytest.raises(ValueError, match="not yet"):
            await session.commit()
        stage(session, 1)
        with listening(session.sync_session, "before_commit", refuse), pytest.raises(ValueError, match="not yet"):
            await session.commit()
        stage(session, 2)
        await session.commit()
    assert await bodies(table) == numbered(1, 2)


async def test_after_the_commit_nothing_is_staged(stage: Stage, engine: AsyncEngine, table: Table) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT 1"))
        refused = pytest.raises(InvalidSessionError, match="its transaction is over")
        with listening(session.sync_session, "after_commit", lambda plain: stage(plain, 1)), refused:
            await session.commit()
    assert await table.is_empty()


# --- duplicates


async def test_duplicates_are_known_when_they_are_written(
    broker: OutboxBroker, stage: Stage, engine: AsyncEngine, table: Table
) -> None:
    async with AsyncSession(engine) as session, session.begin():
        await broker.publish({"n": 0}, queue="orders", session=session, idempotency_key="before")
    async with AsyncSession(engine) as session, session.begin():
        staged = [
            stage(session, 1, idempotency_key="before"),
            stage(session, 2, idempotency_key="a"),
            stage(session, 3, idempotency_key="a"),
            stage(session, 4, idempotency_key="a", queue="mails"),
            stage(session, 5, timer_id="t"),
            stage(session, 6, timer_id="t"),
            stage(session, 7),
        ]
    assert broker.duplicates == 3
    assert all(message.is_written for message in staged)
    assert [message.id is None for message in staged] == [True, False, True, False, False, True, False]
    rows = {row.id: bytes(row.payload).decode() for row in await table.rows()}
    assert [rows[message.id] for message in staged if message.id] == numbered(2, 4, 5, 7)
    assert await bodies(table) == numbered(0, 2, 4, 5, 7)


async def test_what_is_no_duplicate_is_no_duplicate(stage: Stage, engine: AsyncEngine, table: Table) -> None:
    """Ids that the sequence gives once more are in the way of some rows, and the owner's index of one."""
    async with AsyncSession(engine) as session, session.begin():
        [stage(session, n, queue="old") for n in range(3)]
    await table.query("ALTER TABLE outbox ALTER COLUMN id RESTART WITH 3")
    async with AsyncSession(engine) as session, session.begin():
        keys = ["a", None, "b", "b"]
        staged = [stage(session, n, idempotency_key=key) for n, key in enumerate(keys, 1)]
    assert [message.id is None for message in staged] == [False, False, False, True]
    assert (await bodies(table))[3:] == numbered(1, 2, 3)


async def test_a_row_that_a_trigger_suppresses_fails_the_commit(
    stage: Stage, engine: AsyncEngine, table: Table
) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        )
        await connection.execute(
            text(
                "CREATE TRIGGER nothing BEFORE INSERT ON outbox FOR EACH ROW WHEN (NEW.key = 'no') "
                "EXECUTE FUNCTION nothing()"
            )
        )
    async with AsyncSession(engine) as session:
        stage(session, 1, queue="yes")
        stage(session, 2, queue="no", key="no")
        with pytest.raises(NotWrittenError, match="'no'"):
            await session.commit()
        await session.rollback()
    assert await table.is_empty()


# --- copies


async def test_copies_are_written_in_the_same_statement(
    make_broker: MakeBroker, engine: AsyncEngine, table: Table, traffic: Traffic
) -> None:
    from faststream.redis import RedisBroker

    broker = make_broker()
    redis = RedisBroker()
    broker.forwarder("orders", to=redis.publisher(stream="orders"), name="copy", tee=True)
    async with AsyncSession(engine) as session, session.begin():
        broker.stage({"n": 0}, queue="orders", session=session, idempotency_key="i")
    traffic.statements.clear()
    async with AsyncSession(engine) as session, session.begin():
        duplicate = broker.stage({"n": 1}, queue="orders", session=session, idempotency_key="i")
        broker.stage({"n": 2}, queue="orders", session=session, key="k")
        broker.stage({"n": 3}, queue="mails", session=session)
    assert len([each for each in traffic.statements if "INSERT INTO outbox" in each]) == 1
    assert duplicate.id is None
    rows = await table.query("SELECT queue, key, payload FROM outbox ORDER BY payload, queue")
    assert [(row.queue, bytes(row.payload).decode()) for row in rows] == [
        *(("orders", '{"n":0}'), ("orders=>copy", '{"n":0}')),
        *(("orders", '{"n":2}'), ("orders=>copy", '{"n":2}')),
        ("mails", '{"n":3}'),
    ]


async def test_a_timer_is_moved_among_others(stage: Stage, engine: AsyncEngine, table: Table) -> None:
    later = {"timer_id": "t", "activate_in": timedelta(hours=1), "timer_conflict": "extend"}
    async with AsyncSession(engine) as session, session.begin():
        staged = [stage(session, 1), stage(session, 2, **later), stage(session, 3, **later)]
    rows = {row.id: bytes(row.payload).decode() for row in await table.rows()}
    assert sorted(rows.values()) == numbered(1, 3)
    assert rows[staged[2].id or 0] == numbered(3)[0]


# --- several brokers, several databases


async def test_several_brokers_stage_in_one_session(make_broker: MakeBroker, engine: AsyncEngine, table: Table) -> None:
    brokers = [make_broker(), make_broker()]
    async with AsyncSession(engine) as session, session.begin():
        for n in range(4):
            brokers[n % 2].stage({"n": n}, queue="orders", session=session)
    assert await bodies(table) == numbered(0, 2, 1, 3)


async def test_a_session_with_several_databases(
    stage: Stage, engine: AsyncEngine, outbox_table: SqlTable, table: Table
) -> None:
    other = engine.execution_options(logging_token="other")
    async with AsyncSession(binds={Order: engine}) as session, session.begin():
        session.add(Order(id=1))
        [stage(session, n) for n in range(2)]
    async with AsyncSession(binds={Order: other, outbox_table: engine}) as session, session.begin():
        session.add(Order(id=2))
        [stage(session, n) for n in range(2, 4)]
    assert await bodies(table) == numbered(0, 1, 2, 3)


@pytest.mark.parametrize("mode", ["create_savepoint", "conditional_savepoint", "rollback_only"])
@pytest.mark.parametrize("when", [None, "before_flush", "before_commit"])
async def test_a_session_on_a_connection_of_the_caller(
    stage: Stage, sync_engine: Engine, table: Table, mode: Any, when: str | None
) -> None:
    """As in tests that roll back at the end: what the session has committed is seen on the connection."""

    def rows(connection: Connection) -> int:
        return int(connection.execute(text("SELECT count(*) FROM outbox")).scalar_one())

    with sync_engine.connect() as connection:
        outer = connection.begin()
        with Session(connection, join_transaction_mode=mode) as session:
            if when is None:
                stage(session)
                session.add(Order(id=1))
                session.commit()
            else:
                session.add(Order(id=1))
                if when == "before_commit":
                    session.flush()
                with listening(session, when, lambda session, *_: stage(session)):
                    session.commit()
            assert rows(connection) == 1
        outer.rollback()
    assert await table.is_empty()


async def test_two_phases(make_broker: MakeBroker, sync_engine: Engine, table: Table) -> None:
    with Session(sync_engine, twophase=True) as session, pytest.raises(InvalidSessionError, match="two phases"):
        make_broker().stage({}, queue="orders", session=session)
    broker = make_broker(notify=False)
    with Session(sync_engine, twophase=True) as session:
        session.add(Order(id=1))
        session.flush()
        broker.stage({"n": 1}, queue="orders", session=session)
        with listening(session, "before_commit", lambda plain: broker.stage({"n": 2}, queue="orders", session=plain)):
            session.commit()
    assert await bodies(table) == numbered(1, 2)


# --- what is refused


@pytest.mark.parametrize("wrong", [None, "session", object, AsyncSession])
def test_what_is_no_session_is_refused_by_name(broker: OutboxBroker, wrong: Any) -> None:
    with pytest.raises(InvalidSessionError, match=f"must be an AsyncSession or Session, got {type(wrong).__name__}"):
        broker.stage({}, queue="orders", session=wrong)


async def test_connections_are_refused_with_what_to_use_instead(
    broker: OutboxBroker, engine: AsyncEngine, sync_engine: Engine
) -> None:
    async with engine.connect() as connection:
        with pytest.raises(InvalidSessionError, match=r"got AsyncConnection.*use publish with it"):
            broker.stage({}, queue="orders", session=connection)  # type: ignore[arg-type]
    with sync_engine.connect() as plain, pytest.raises(InvalidSessionError, match=r"got Connection.*use publish_sync"):
        broker.stage({}, queue="orders", session=plain)  # type: ignore[arg-type]


async def test_bad_input_is_refused_at_the_call_and_the_rest_is_written(
    stage: Stage, engine: AsyncEngine, table: Table
) -> None:
    async with AsyncSession(engine) as session, session.begin():
        stage(session, 1)
        with pytest.raises(InvalidMessageError, match="key"):
            stage(session, 2, key="k" * 2000)
        with pytest.raises(TypeError, match=r"stage\(\) got an unexpected keyword argument 'kee'"):
            stage(session, 2, kee="k")
    assert await bodies(table) == numbered(1)


async def test_sessions_that_cannot_write_are_refused(stage: Stage, engine: AsyncEngine) -> None:
    session = AsyncSession(engine, close_resets_only=False)
    await session.close()
    with pytest.raises(InvalidSessionError, match="cannot be used"):
        stage(session)
    session = AsyncSession(engine, autobegin=False)
    with pytest.raises(InvalidSessionError, match="autobegin=False"):
        stage(session)
    async with session.begin():
        assert not stage(session).is_written
    async with AsyncSession(engine) as session:
        session.add_all([Order(id=1), Order(id=1)])
        with pytest.raises(IntegrityError):
            await session.flush()
        with pytest.raises(InvalidSessionError, match="its transaction is over"):
            stage(session)


async def test_autocommit_fails_the_commit(stage: Stage, engine: AsyncEngine, table: Table) -> None:
    async with AsyncSession(engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
        staged = stage(session)
        with pytest.raises(InvalidSessionError, match="AUTOCOMMIT"):
            await session.commit()
        await session.rollback()
    assert not staged.is_written
    assert await table.is_empty()


def test_another_kind_of_database_is_refused_at_the_call(stage: Stage) -> None:
    engine = create_engine("sqlite://")
    with (
        Session(engine) as session,
        pytest.raises(InvalidSessionError, match="must be bound to PostgreSQL, got sqlite"),
    ):
        stage(session)
    engine.dispose()


# --- failures


async def test_a_commit_that_fails_leaves_nothing(stage: Stage, engine: AsyncEngine, table: Table) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("ALTER TABLE orders ADD CONSTRAINT twice UNIQUE (status) DEFERRABLE INITIALLY DEFERRED")
        )
    async with AsyncSession(engine) as session:
        session.add_all([Order(id=1), Order(id=2)])
        staged = stage(session)
        with pytest.raises(IntegrityError, match="twice"):
            await session.commit()
        await session.rollback()
        assert (staged.is_written, staged.id) == (False, None)
        stage(session, 2)
        await session.commit()
    assert await bodies(table) == numbered(2)


@pytest.mark.parametrize("late", [False, True], ids=["before_commit", "at COMMIT"])
async def test_a_connection_that_breaks_during_the_insert(
    make_broker: MakeBroker, database_url: str, engine: AsyncEngine, table: Table, *, late: bool
) -> None:
    url = make_url(database_url)
    broker = make_broker()
    async with TcpProxy(url.host or LOOPBACK, url.port or 5432) as proxy:
        through = create_async_engine(url.set(host="127.0.0.1", port=proxy.port))
        async with AsyncSession(through) as session:
            await session.execute(text("SELECT 1"))

            def break_it(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
                if "INSERT INTO outbox" in statement:
                    proxy.reset()

            def collect(session: Session) -> None:
                broker.stage({"n": 1}, queue="orders", session=session)

            event.listen(through.sync_engine, "before_cursor_execute", break_it)
            if late:
                event.listen(session.sync_session, "before_commit", collect)
            else:
                collect(session.sync_session)
            with pytest.raises(DBAPIError):
                await session.commit()
            event.remove(through.sync_engine, "before_cursor_execute", break_it)
            await session.rollback()
            assert await table.is_empty()
            if not late:
                collect(session.sync_session)
            await session.commit()
        await through.dispose()
    assert await bodies(table) == numbered(1)


async def test_a_serialization_failure_is_tried_again(stage: Stage, engine: AsyncEngine, table: Table) -> None:
    async with AsyncSession(engine) as session, session.begin():
        session.add(Order(id=1))
    serializable = engine.execution_options(isolation_level="SERIALIZABLE")
    tries = 0
    while True:
        async with AsyncSession(serializable) as session:
            tries += 1
            order = await session.get_one(Order, 1)
            order.status = f"try {tries}"
            staged = stage(session, tries, key="k")
            if tries == 1:
                async with engine.begin() as other:
                    await other.execute(text("UPDATE orders SET status = 'theirs'"))
            try:
                await session.commit()
            except DBAPIError as error:
                assert "could not serialize" in str(error)  # noqa: PT017
                await session.rollback()
                assert not staged.is_written
                continue
            break
    assert (tries, staged.is_written) == (2, True)
    assert await bodies(table) == numbered(2)


async def test_a_flush_that_fails_takes_what_waits(stage: Stage, engine: AsyncEngine, table: Table) -> None:
    async with AsyncSession(engine) as session:
        stage(session)
        session.add_all([Order(id=1), Order(id=1)])
        with pytest.raises((IntegrityError, InvalidRequestError)):
            await session.commit()
        await session.rollback()
        await session.commit()
    assert await table.is_empty()


# --- middlewares


async def test_publish_middlewares_run_at_the_call(make_broker: MakeBroker, engine: AsyncEngine, table: Table) -> None:
    class Region(BaseMiddleware):
        async def publish_scope(self, call_next: Any, cmd: PublishCommand) -> Any:
            cmd.headers["region"] = "north"
            return await call_next(cmd)

    broker = make_broker(middlewares=[Region])
    async with AsyncSession(engine) as session, session.begin():
        broker.stage({}, queue="orders", session=session)
    (row,) = await table.rows()
    assert row.headers["region"] == "north"


async def test_a_middleware_that_waits_is_refused_by_name(
    make_broker: MakeBroker, engine: AsyncEngine, table: Table
) -> None:
    class Limiter(BaseMiddleware):
        async def publish_scope(self, call_next: Any, cmd: PublishCommand) -> Any:
            await asyncio.sleep(0.001)
            return await call_next(cmd)

    class SlowCodec(DefaultCodec):
        async def encode(self, *args: Any, **options: Any) -> Any:
            await asyncio.sleep(0.001)

    broker, slow = make_broker(middlewares=[Limiter]), make_broker(codec=SlowCodec())
    async with AsyncSession(engine) as session, session.begin():
        with pytest.raises(ConfigError, match=r"a publish middleware that waits \(.*Limiter\.publish_scope > sleep\)"):
            broker.stage({}, queue="orders", session=session)
        with pytest.raises(ConfigError, match=r"the broker's codec .*SlowCodec\.encode > sleep\)"):
            slow.stage({}, queue="orders", session=session)
    assert await table.is_empty()


async def test_the_meter_counts_when_it_is_written(make_broker: MakeBroker, engine: AsyncEngine) -> None:
    from prometheus_client import CollectorRegistry

    from faststream_outbox.prometheus import OutboxMetrics

    registry = CollectorRegistry()
    broker = make_broker(metrics=OutboxMetrics(registry=registry))
    async with AsyncSession(engine) as session, session.begin():
        for queue, key in (("a", "1"), ("a", "1"), ("b", "2")):
            broker.stage({}, queue=queue, session=session, idempotency_key=key)
        samples = {s.name: s for metric in registry.collect() for s in metric.samples if "publish" in s.name}
        assert samples == {} or all(sample.value == 0 for sample in samples.values())
    counted = {
        (sample.name, sample.labels["queue"]): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name.endswith(("published_total", "publish_duplicates_total", "duplicates_total"))
    }
    assert {value for (name, queue), value in counted.items() if "duplicates" in name and queue == "a"} == {1.0}
    assert {value for (name, _), value in counted.items() if "duplicates" not in name} == {1.0}

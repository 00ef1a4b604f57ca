"""Publishing works in whatever session the caller has, in its transaction, and says what is wrong with a bad one."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, Table, create_engine, event, make_url, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from faststream_outbox._store.postgres.writer import PostgresWriter
from faststream_outbox.exceptions import InvalidSessionError, OutboxError
from tests.store.suite import StoreSuite, claim, draft, failing, ids, put

from .subject import PostgresSubject


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def subject(engine: AsyncEngine, outbox_table: Table) -> PostgresSubject:
    return PostgresSubject(engine, outbox_table, None)


@pytest.fixture
def writer(subject: PostgresSubject) -> PostgresWriter:
    return subject.writer


@pytest.fixture
async def psycopg_engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    yield engine
    await engine.dispose()


@pytest.fixture
async def orders(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


# --- all kinds of sessions


def async_session(engine: AsyncEngine) -> AbstractAsyncContextManager[Any]:
    return async_sessionmaker(engine).begin()


def async_connection(engine: AsyncEngine) -> AbstractAsyncContextManager[Any]:
    return engine.begin()


@asynccontextmanager
async def scoped(engine: AsyncEngine) -> AsyncIterator[Any]:
    sessions = async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: 1)
    async with sessions.begin():
        yield sessions
    await sessions.remove()


@asynccontextmanager
async def in_savepoint(engine: AsyncEngine) -> AsyncIterator[Any]:
    async with async_sessionmaker(engine).begin() as session, session.begin_nested():
        yield session


ASYNC: list[Callable[[AsyncEngine], AbstractAsyncContextManager[Any]]] = [
    async_session,
    async_connection,
    scoped,
    in_savepoint,
]


@pytest.mark.parametrize("begin", ASYNC)
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_asynchronous_sessions(
    subject: PostgresSubject,
    engine: AsyncEngine,
    psycopg_engine: AsyncEngine,
    begin: Callable[[AsyncEngine], AbstractAsyncContextManager[Any]],
    driver: str,
) -> None:
    chosen = engine if driver == "asyncpg" else psycopg_engine
    writer = subject.writer
    async with failing(begin(chosen)) as session:
        await writer.insert(session, draft(key="k"))
        await writer.insert_many(session, [draft(key="k"), draft()])
    assert await subject.rows() == {}
    async with begin(chosen) as session:
        first = await writer.insert(session, draft(key="k", headers={"ü": "%s :x"}, idempotency_key="i"))
        assert await writer.insert(session, draft(idempotency_key="i")) is None
        many = await writer.insert_many(session, [draft(key="k"), draft(timer_id="t")])
        found = await writer.fetch_unprocessed(session, queue="q", limit=10)
        assert ids(found) == [first, *many]
        assert found[0].headers["ü"] == "%s :x"
        assert found[0].payload == b"body"
        assert await writer.cancel_timer(session, queue="q", timer_id="none") is False
    assert list(await subject.rows()) == [first, *many]


def session(engine: Engine) -> AbstractContextManager[Any]:
    return sessionmaker(engine).begin()


def connection(engine: Engine) -> AbstractContextManager[Any]:
    return engine.begin()


@pytest.mark.parametrize("begin", [session, connection])
async def test_synchronous_sessions(
    subject: PostgresSubject, sync_engine: Engine, begin: Callable[[Engine], AbstractContextManager[Any]]
) -> None:
    writer = subject.writer
    with begin(sync_engine) as open_session:
        writer.insert_sync(open_session, draft(key="k"))
        open_session.rollback()
    assert await subject.rows() == {}
    with begin(sync_engine) as open_session:
        row_id = writer.insert_sync(open_session, draft(key="k", headers={"ü": "%s :x"}, idempotency_key="i"))
        assert writer.insert_sync(open_session, draft(key="k", idempotency_key="i")) is None
    [stored] = (await subject.rows()).values()
    assert stored.row.id == row_id
    assert stored.row.headers["ü"] == "%s :x"


async def test_publishing_never_commits(writer: PostgresWriter, subject: PostgresSubject, engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as open_session:
        await writer.insert(open_session, draft())
        assert await subject.rows() == {}
        assert open_session.in_transaction()


async def test_a_savepoint_takes_its_rows_back(
    writer: PostgresWriter, subject: PostgresSubject, engine: AsyncEngine
) -> None:
    async with async_sessionmaker(engine).begin() as open_session:
        kept = await writer.insert(open_session, draft())
        async with failing(open_session.begin_nested()):
            await writer.insert(open_session, draft())
    assert list(await subject.rows()) == [kept]


# --- engines that are watched

EVENTS = ["before_execute", "after_execute", "before_cursor_execute", "after_cursor_execute"]


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("on", ["engine", "connection", "all engines"])
async def test_whoever_watches_statements_sees_each_message(
    writer: PostgresWriter, engine: AsyncEngine, name: str, on: str
) -> None:
    seen: list[str] = []

    def note(_connection: Connection, first: Any, second: Any, *_: Any) -> None:
        seen.append(str(second if name.endswith("cursor_execute") else first))

    async with engine.connect() as open_connection:
        target: Any = {"engine": engine.sync_engine, "connection": open_connection.sync_connection}.get(on, Engine)
        await writer.insert(open_connection, draft())
        event.listen(target, name, note)
        try:
            await writer.insert(open_connection, draft(key="k"))
            await writer.insert(open_connection, draft(timer_id="t"))
        finally:
            event.remove(target, name, note)
        await writer.insert(open_connection, draft())
    assert len([statement for statement in seen if "INSERT INTO outbox" in statement]) == 2


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_writer_that_wakes_nobody(
    subject: PostgresSubject, engine: AsyncEngine, psycopg_engine: AsyncEngine, outbox_table: Table, driver: str
) -> None:
    writer = PostgresWriter(engine, outbox_table, notify=False)
    async with (engine if driver == "asyncpg" else psycopg_engine).begin() as open_connection:
        row_id = await writer.insert(open_connection, draft(key="k"))
    assert list(await subject.rows()) == [row_id]


# --- the order of ids and domain rows


@pytest.mark.usefixtures("orders")
async def test_pending_changes_are_written_before_a_row_with_a_key(writer: PostgresWriter, engine: AsyncEngine) -> None:
    for publish in (
        lambda session: writer.insert(session, draft(key="k")),
        lambda session: writer.insert_many(session, [draft(), draft(key="k")]),
    ):
        async with AsyncSession(engine, autoflush=False) as open_session:
            open_session.add(Order(id=1))
            await publish(open_session)
            assert not open_session.new


@pytest.mark.usefixtures("orders")
async def test_a_row_without_a_key_writes_nothing_else(writer: PostgresWriter, engine: AsyncEngine) -> None:
    async with AsyncSession(engine, autoflush=False) as open_session:
        open_session.add(Order(id=1))
        await writer.insert(open_session, draft())
        await writer.insert_many(open_session, [draft()])
        assert open_session.new


@pytest.mark.usefixtures("orders")
async def test_an_error_of_the_callers_own_changes_passes_through(writer: PostgresWriter, engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as open_session:
        await open_session.execute(text("INSERT INTO orders VALUES (1)"))
        open_session.add(Order(id=1))
        with pytest.raises(IntegrityError):
            await writer.insert(open_session, draft(key="k"))


# --- what cannot carry a row


def check(error: InvalidSessionError, problem: str) -> None:
    assert isinstance(error, TypeError)
    assert isinstance(error, OutboxError)
    assert str(error).startswith("session: ")
    assert problem in str(error)


@pytest.mark.parametrize("wrong", [None, "session", 5, object(), AsyncSession], ids=repr)
async def test_something_else_is_refused(writer: PostgresWriter, wrong: object) -> None:
    name = type(wrong).__name__
    for publish in (writer.insert, writer.cancel_timer, writer.fetch_unprocessed, writer.insert_many):
        options: dict[Any, dict[str, Any]] = {
            writer.insert: {"draft": draft()},
            writer.insert_many: {"drafts": [draft()]},
            writer.cancel_timer: {"queue": "q", "timer_id": "t"},
            writer.fetch_unprocessed: {"queue": None, "limit": 1},
        }
        with pytest.raises(InvalidSessionError) as caught:
            await publish(wrong, **options[publish])
        check(caught.value, f"must be an AsyncSession or AsyncConnection, got {name}")
    with pytest.raises(InvalidSessionError) as caught:
        writer.insert_sync(wrong, draft())
    check(caught.value, f"must be a Session or Connection, got {name}")


async def test_the_engine_itself_is_no_session(
    writer: PostgresWriter, engine: AsyncEngine, sync_engine: Engine
) -> None:
    with pytest.raises(InvalidSessionError) as caught:
        await writer.insert(engine, draft())
    check(caught.value, "got AsyncEngine")
    with pytest.raises(InvalidSessionError) as caught:
        writer.insert_sync(sync_engine, draft())
    check(caught.value, "got Engine")


async def test_the_other_kind_of_session_is_refused_with_advice(
    writer: PostgresWriter, engine: AsyncEngine, sync_engine: Engine
) -> None:
    with Session(sync_engine) as plain, sync_engine.connect() as plain_connection:
        for wrong in (plain, plain_connection):
            with pytest.raises(InvalidSessionError) as caught:
                await writer.insert(wrong, draft())
            check(caught.value, "use publish_sync with it")
    async with AsyncSession(engine) as asynchronous, engine.connect() as asynchronous_connection:
        for wrong in (asynchronous, asynchronous_connection):
            with pytest.raises(InvalidSessionError) as caught:
                writer.insert_sync(wrong, draft())
            check(caught.value, "use publish with it")


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_closed_session_is_refused(
    writer: PostgresWriter, engine: AsyncEngine, sync_engine: Engine, key: str | None
) -> None:
    asynchronous = AsyncSession(engine, close_resets_only=False)
    await asynchronous.close()
    with pytest.raises(InvalidSessionError) as caught:
        await writer.insert(asynchronous, draft(key=key))
    check(caught.value, "cannot be used")
    plain = Session(sync_engine, close_resets_only=False)
    plain.close()
    with pytest.raises(InvalidSessionError) as caught:
        writer.insert_sync(plain, draft(key=key))
    check(caught.value, "cannot be used")


async def test_a_closed_connection_is_refused(writer: PostgresWriter, engine: AsyncEngine, sync_engine: Engine) -> None:
    asynchronous: AsyncConnection = await engine.connect()
    await asynchronous.close()
    with pytest.raises(InvalidSessionError) as caught:
        await writer.insert(asynchronous, draft())
    check(caught.value, "is closed")
    plain: Connection = sync_engine.connect()
    plain.close()
    with pytest.raises(InvalidSessionError) as caught:
        writer.insert_sync(plain, draft())
    check(caught.value, "is closed")


async def test_a_connection_that_was_never_opened_is_refused(writer: PostgresWriter, engine: AsyncEngine) -> None:
    with pytest.raises(InvalidSessionError) as caught:
        await writer.insert(engine.connect(), draft())
    check(caught.value, "is closed")


@pytest.mark.usefixtures("orders")
async def test_a_session_whose_transaction_failed_is_refused(writer: PostgresWriter, engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as open_session:
        await open_session.execute(text("INSERT INTO orders VALUES (1)"))
        open_session.add(Order(id=1))
        with pytest.raises(IntegrityError):
            await open_session.flush()
        for key in (None, "k"):
            with pytest.raises(InvalidSessionError) as caught:
                await writer.insert(open_session, draft(key=key))
            check(caught.value, "cannot be used")


def test_another_database_is_refused(writer: PostgresWriter) -> None:
    sqlite = create_engine("sqlite://")
    with Session(sqlite) as plain, sqlite.connect() as plain_connection:
        for wrong in (plain, plain_connection):
            with pytest.raises(InvalidSessionError) as caught:
                writer.insert_sync(wrong, draft(key="k"))
            check(caught.value, "must be bound to PostgreSQL, got sqlite")
    sqlite.dispose()


def test_a_session_without_a_database_is_refused(writer: PostgresWriter) -> None:
    with Session() as plain, pytest.raises(InvalidSessionError) as caught:
        writer.insert_sync(plain, draft())
    check(caught.value, "cannot be used")


@contextmanager
def plainly_scoped(engine: Engine) -> Iterator[Any]:
    sessions = scoped_session(sessionmaker(engine))
    with sessions.begin():
        yield sessions
    sessions.remove()


async def test_a_plain_scoped_session_works_too(subject: PostgresSubject, sync_engine: Engine) -> None:
    with plainly_scoped(sync_engine) as sessions:
        row_id = subject.writer.insert_sync(sessions, draft(key="k"))
    assert list(await subject.rows()) == [row_id]


# --- engines with another isolation level

LEVELS: list[dict[str, Any]] = [
    {"isolation_level": "SERIALIZABLE"},
    {"isolation_level": "REPEATABLE READ"},
    {"connect_args": {"server_settings": {"default_transaction_isolation": "repeatable read"}}},
    {"connect_args": {"server_settings": {"default_transaction_isolation": "serializable"}}},
]


@pytest.mark.parametrize("options", LEVELS, ids=str)
class TestIsolation:
    @pytest.fixture
    async def subject(
        self, database_url: str, outbox_table: Table, options: dict[str, Any]
    ) -> AsyncIterator[PostgresSubject]:
        engine = create_async_engine(database_url, **options)
        yield PostgresSubject(engine, outbox_table, None)
        await engine.dispose()

    async def test_lanes_keep_order(self, subject: PostgresSubject) -> None:
        await StoreSuite().test_lanes_keep_each_keys_order_and_send_nothing_twice(subject)

    async def test_claims_share_nothing(self, subject: PostgresSubject) -> None:
        await StoreSuite().test_concurrent_claims_never_share_a_row(subject)

    async def test_wake_ups_come(self, subject: PostgresSubject) -> None:
        await StoreSuite().test_a_listener_hears_of_rows_when_they_are_committed(subject)

    async def test_leases_and_outcomes(self, subject: PostgresSubject) -> None:
        await StoreSuite().test_one_write_takes_outcomes_of_all_kinds(subject)

    async def test_the_callers_transaction_keeps_its_level(self, subject: PostgresSubject) -> None:
        await put(subject)
        async with AsyncSession(subject.engine) as open_session:
            await open_session.execute(text("SELECT 1"))
            before = (await open_session.execute(text("SHOW transaction_isolation"))).scalar_one()
            await subject.writer.insert(open_session, draft())
            assert (await open_session.execute(text("SHOW transaction_isolation"))).scalar_one() == before
        assert len(await claim(subject)) == 1

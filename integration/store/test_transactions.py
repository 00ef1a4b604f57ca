"""Where a message can be written: not in AUTOCOMMIT, but in a flush, and in a session with several databases."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, Table, create_engine, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from faststream_outbox import InvalidSessionError
from faststream_outbox._store.postgres.writer import PostgresWriter
from tests.store.suite import draft, put

from .subject import PostgresSubject


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    paid: Mapped[bool] = mapped_column(default=False)


@pytest.fixture
def subject(engine: AsyncEngine, outbox_table: Table) -> PostgresSubject:
    return PostgresSubject(engine, outbox_table, None)


@pytest.fixture
def writer(subject: PostgresSubject) -> PostgresWriter:
    return subject.writer


@pytest.fixture
async def orders(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)


# --- AUTOCOMMIT


@asynccontextmanager
async def made(url: Any, **options: Any) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url, **options)
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def of_an_engine(url: Any) -> AsyncIterator[Any]:
    async with made(url, isolation_level="AUTOCOMMIT") as engine, AsyncSession(engine) as session:
        yield session


@asynccontextmanager
async def of_an_engine_with_options(url: Any) -> AsyncIterator[Any]:
    async with made(url) as engine:
        session = AsyncSession(engine.execution_options(isolation_level="AUTOCOMMIT"))
        async with session, session.begin():
            yield session


@asynccontextmanager
async def of_a_session(url: Any) -> AsyncIterator[Any]:
    async with made(url) as engine, AsyncSession(engine) as session:
        await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        yield session


@asynccontextmanager
async def of_a_connection(url: Any) -> AsyncIterator[Any]:
    async with made(url) as engine, engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        yield connection


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize(
    "begin", [of_an_engine, of_an_engine_with_options, of_a_session, of_a_connection], ids=lambda begin: begin.__name__
)
async def test_autocommit_is_refused(
    writer: PostgresWriter,
    subject: PostgresSubject,
    database_url: str,
    begin: Callable[[Any], AbstractAsyncContextManager[Any]],
    driver: str,
) -> None:
    [timer] = await put(subject, draft(timer_id="t"))
    async with begin(make_url(database_url).set(drivername=f"postgresql+{driver}")) as session:
        for refused in (
            lambda: writer.insert(session, draft()),
            lambda: writer.insert(session, draft(key="k", idempotency_key="i")),
            lambda: writer.insert_many(session, [draft()]),
            lambda: writer.cancel_timer(session, queue="q", timer_id="t"),
        ):
            with pytest.raises(InvalidSessionError, match="session: its connection is in AUTOCOMMIT, "):
                await refused()
        # Only to look is as good as ever.
        assert len(await writer.fetch_unprocessed(session, queue="q", limit=10)) == 1
    assert list(await subject.rows()) == [timer]


def test_autocommit_of_a_plain_session_is_refused(writer: PostgresWriter, database_url: str) -> None:
    for options in ({"isolation_level": "AUTOCOMMIT"}, {"connect_args": {"autocommit": True}}):
        engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"), **options)
        with Session(engine) as session, engine.connect() as connection:
            for each in (session, connection):
                with pytest.raises(InvalidSessionError, match="session: its connection is in AUTOCOMMIT"):
                    writer.insert_sync(each, draft())
        engine.dispose()


async def test_a_session_may_choose_another_level_than_autocommit(
    writer: PostgresWriter, subject: PostgresSubject, database_url: str
) -> None:
    async with made(database_url, isolation_level="AUTOCOMMIT") as engine:
        session = AsyncSession(engine.execution_options(isolation_level="READ COMMITTED"))
        await writer.insert(session, draft())
        await session.rollback()
        kept = await writer.insert(session, draft())
        await session.commit()
        await session.close()
    assert list(await subject.rows()) == [kept]


async def test_a_message_of_its_own_and_its_copies_are_written_together_under_autocommit(
    outbox_table: Table, subject: PostgresSubject, database_url: str
) -> None:
    async with made(database_url, isolation_level="AUTOCOMMIT") as engine:
        writer = PostgresWriter(engine, outbox_table)
        await writer.insert_alone(draft(idempotency_key="i"))
        assert await writer.insert_alone(draft(idempotency_key="i")) is None
        async with engine.connect() as connection:
            # A conflict that takes a savepoint to get by, which there is none of without a transaction.
            await connection.execute(text("ALTER TABLE outbox ALTER COLUMN id RESTART WITH 1"))
        await writer.insert_alone(draft(idempotency_key="j"))
    assert len(await subject.rows()) == 2


# --- within a flush

WHEN = ["before_flush", "after_flush", "after_flush_postexec", "before_commit"]


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("when", WHEN)
async def test_a_listener_of_the_session_publishes(
    writer: PostgresWriter, subject: PostgresSubject, engine: AsyncEngine, when: str, key: str | None
) -> None:
    class Listened(Session):
        pass

    published: list[int | None] = []

    @event.listens_for(Listened, when)
    def publish(session: Session, *_: Any) -> None:
        if not published:
            published.append(writer.insert_sync(session, draft(key=key)))

    async with AsyncSession(engine, sync_session_class=Listened) as session, session.begin():
        session.add(Order(id=1))
    assert list(await subject.rows()) == published
    async with AsyncSession(engine) as session:
        assert await session.get(Order, 1)


@pytest.mark.usefixtures("orders")
async def test_a_listener_of_a_mapper_publishes(
    writer: PostgresWriter, subject: PostgresSubject, engine: AsyncEngine
) -> None:
    published: list[int | None] = []

    def publish(_mapper: Any, connection: Any, order: Order) -> None:
        published.append(writer.insert_sync(connection, draft(key="by connection")))
        session = Session.object_session(order)
        assert session is not None
        published.append(writer.insert_sync(session, draft(key="by session")))

    event.listen(Order, "after_insert", publish)
    try:
        async with AsyncSession(engine) as session, session.begin():
            session.add(Order(id=1))
    finally:
        event.remove(Order, "after_insert", publish)
    assert list(await subject.rows()) == published
    assert len(published) == 2


@pytest.mark.usefixtures("orders")
async def test_after_a_flush_ids_follow_the_order_of_the_locks(
    writer: PostgresWriter, engine: AsyncEngine, sync_engine: Engine
) -> None:
    """The changed row is locked when the message gets its id: nobody else's change comes between."""

    class Listened(Session):
        pass

    locked: list[bool] = []

    @event.listens_for(Listened, "after_flush")
    def publish(session: Session, *_: Any) -> None:
        writer.insert_sync(session, draft(key="k"))
        with sync_engine.begin() as other:
            rows = other.execute(text("SELECT 1 FROM orders FOR UPDATE SKIP LOCKED")).all()
            locked.append(not rows)

    async with AsyncSession(engine) as session, session.begin():
        session.add(Order(id=1))
    async with AsyncSession(engine, sync_session_class=Listened) as session, session.begin():
        order = await session.get(Order, 1)
        assert order is not None
        order.paid = True
    assert locked == [True]


@pytest.mark.usefixtures("orders")
async def test_what_else_is_wrong_with_a_flush_passes_through(writer: PostgresWriter, engine: AsyncEngine) -> None:
    class Listened(Session):
        pass

    @event.listens_for(Listened, "before_flush")
    def fail(*_: Any) -> None:
        raise LookupError

    async with AsyncSession(engine, sync_session_class=Listened) as session:
        session.add(Order(id=1))
        with pytest.raises(LookupError):
            await writer.insert(session, draft(key="k"))


# --- several databases


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize("empty", [True, False], ids=["without objects", "with objects"])
@pytest.mark.parametrize("named", ["the table", "classes alone"])
async def test_a_session_that_binds_each_class(
    writer: PostgresWriter, subject: PostgresSubject, engine: AsyncEngine, outbox_table: Table, named: str, empty: bool
) -> None:
    binds: dict[Any, Any] = {Base: engine} | ({outbox_table: engine} if named == "the table" else {})
    async with AsyncSession(binds=binds) as session, session.begin():
        if not empty:
            session.add(Order(id=1))
        kept = await writer.insert(session, draft(key="k"))
    assert list(await subject.rows()) == [kept]


@pytest.fixture
async def elsewhere() -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine("postgresql+asyncpg://127.0.0.1:1/nowhere")
    yield engine
    await engine.dispose()


@pytest.mark.usefixtures("orders")
async def test_messages_are_committed_with_the_sessions_objects(
    subject: PostgresSubject, engine: AsyncEngine, elsewhere: AsyncEngine, outbox_table: Table
) -> None:
    """Where the class is, though the broker's engine is another."""
    writer = PostgresWriter(elsewhere, outbox_table)
    async with AsyncSession(binds={Order: engine}) as session, session.begin():
        session.add(Order(id=1))
        kept = await writer.insert(session, draft(key="k"))
    assert list(await subject.rows()) == [kept]


@pytest.mark.usefixtures("orders")
async def test_what_a_table_is_bound_to_goes_before_the_rest(
    writer: PostgresWriter, subject: PostgresSubject, engine: AsyncEngine, elsewhere: AsyncEngine, outbox_table: Table
) -> None:
    async with AsyncSession(elsewhere, binds={outbox_table: engine}) as session, session.begin():
        kept = await writer.insert(session, draft())
    assert list(await subject.rows()) == [kept]


def test_a_plain_session_that_does_not_say_where_the_table_is(
    writer: PostgresWriter, sync_engine: Engine, outbox_table: Table
) -> None:
    with (
        Session(binds={Order: sync_engine}) as session,
        pytest.raises(InvalidSessionError, match=r"session: cannot be used: its binds .* add the table to binds="),
    ):
        writer.insert_sync(session, draft())
    with Session(binds={Order: sync_engine, outbox_table: sync_engine}) as session, session.begin():
        assert writer.insert_sync(session, draft()) is not None


async def test_objects_in_two_databases_decide_nothing(
    writer: PostgresWriter, engine: AsyncEngine, elsewhere: AsyncEngine
) -> None:
    class Receipt(Base):
        __tablename__ = "receipts"

        id: Mapped[int] = mapped_column(primary_key=True)

    other = create_async_engine("postgresql+asyncpg://127.0.0.1:1/nowhere")
    for receipts, works in ((other, False), (engine, True)):
        async with AsyncSession(binds={Order: elsewhere, Receipt: receipts}) as session:
            session.add_all([Order(id=1), Receipt(id=1)])
            if works:
                await writer.insert(session, draft())
                await session.rollback()
                continue
            with pytest.raises(InvalidSessionError, match="its binds do not say"):
                await writer.insert(session, draft())
    await other.dispose()

"""What ON CONFLICT DO NOTHING skips is a live duplicate, or is named: no message vanishes in silence."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, Table, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from faststream_outbox import NotWrittenError
from faststream_outbox._store.postgres.writer import PostgresWriter
from faststream_outbox._values.draft import Draft
from tests.store.suite import draft, put

from .subject import PostgresSubject


@pytest.fixture
def subject(engine: AsyncEngine, outbox_table: Table) -> PostgresSubject:
    return PostgresSubject(engine, outbox_table, None)


@pytest.fixture
def writer(subject: PostgresSubject) -> PostgresWriter:
    return subject.writer


async def run(engine: AsyncEngine, *statements: str) -> None:
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def number_from(engine: AsyncEngine, first: int) -> None:
    """Leave the sequence behind the ids, as a switch to a logical replica does."""
    await run(engine, f"ALTER TABLE outbox ALTER COLUMN id RESTART WITH {first}")


OWN_INDEX = "CREATE UNIQUE INDEX own ON outbox (queue, key) WHERE key IS NOT NULL"


def copied(**options: Any) -> Draft:
    return draft(copies=lambda _queue: ["q=>kafka"], **options)


async def queues(subject: PostgresSubject) -> list[tuple[str, str]]:
    return [(stored.row.queue, stored.row.idempotency_key) for stored in (await subject.rows()).values()]


# --- a sequence that is behind


@pytest.mark.parametrize("identity", [{"idempotency_key": "new"}, {"timer_id": "new"}], ids=str)
@pytest.mark.parametrize("make", [draft, copied], ids=["alone", "with a copy"])
async def test_a_sequence_that_is_behind_is_named(
    writer: PostgresWriter,
    subject: PostgresSubject,
    engine: AsyncEngine,
    identity: dict[str, str],
    make: Callable[..., Draft],
) -> None:
    before = await put(subject, *[draft() for _ in range(9)])
    await number_from(engine, 1)
    async with AsyncSession(engine) as session, session.begin():
        with pytest.raises(IntegrityError, match=r'no live duplicate(.|\n)*constraint "outbox_pkey"'):
            await writer.insert(session, make(**identity))
        # The transaction goes on.
        assert await writer.fetch_unprocessed(session, queue="q", limit=100)
    assert list(await subject.rows()) == before


async def test_once_more_is_enough_where_just_one_id_is_taken(
    writer: PostgresWriter, subject: PostgresSubject, engine: AsyncEngine
) -> None:
    [taken] = await put(subject)
    await number_from(engine, taken)
    async with AsyncSession(engine) as session, session.begin():
        assert await writer.insert(session, draft(idempotency_key="new")) == taken + 1
    assert list(await subject.rows()) == [taken, taken + 1]


async def test_a_plain_session_is_told_too(
    writer: PostgresWriter, subject: PostgresSubject, engine: AsyncEngine, sync_engine: Engine
) -> None:
    await put(subject, draft(), draft())
    await number_from(engine, 1)
    with sync_engine.begin() as connection:
        with pytest.raises(IntegrityError, match=r'no live duplicate(.|\n)*constraint "outbox_pkey"'):
            writer.insert_sync(connection, draft(idempotency_key="new"))
        assert connection.execute(text("SELECT count(*) FROM outbox")).scalar_one() == 2


@pytest.mark.parametrize("make", [draft, copied], ids=["alone", "with copies"])
async def test_a_batch_is_written_whole_and_in_its_order(
    writer: PostgresWriter, subject: PostgresSubject, engine: AsyncEngine, make: Callable[..., Draft]
) -> None:
    """The first ids of the batch are taken, so its last messages are written first: in order, all is written anew."""
    [first, _] = await put(subject, draft(queue="other"), draft(queue="other"))
    await number_from(engine, first)
    keys = ["b", "a", "d", "c"]
    async with AsyncSession(engine) as session, session.begin():
        # The second has no identity that could be a duplicate's.
        batch = [make(key="k", **({"idempotency_key": key} if key != "a" else {})) for key in keys]
        written = await writer.insert_many(session, batch)
    assert len(written) == 4
    rows = await subject.rows()
    assert [rows[row_id].row.idempotency_key for row_id in written] == [each.idempotency_key for each in batch]
    copies = [name for name, _ in await queues(subject) if name == "q=>kafka"]
    assert len(copies) == (4 if batch[0].copies else 0)
    assert len(rows) == 2 + 4 + len(copies)


@pytest.mark.parametrize("make", [draft, copied], ids=["alone", "with copies"])
async def test_a_batch_that_cannot_be_written_leaves_nothing(
    writer: PostgresWriter, subject: PostgresSubject, engine: AsyncEngine, make: Callable[..., Draft]
) -> None:
    [kept] = await put(subject, draft(key="k"))
    await run(engine, OWN_INDEX)
    batch = [make(idempotency_key="a"), make(key="k", idempotency_key="b"), make(idempotency_key="c")]
    async with AsyncSession(engine) as session, session.begin():
        with pytest.raises(IntegrityError, match=r'no live duplicate(.|\n)*constraint "own"'):
            await writer.insert_many(session, batch)
    assert list(await subject.rows()) == [kept]


# --- an index of the owner's


async def test_an_index_of_the_owners_own_is_named(
    writer: PostgresWriter, subject: PostgresSubject, engine: AsyncEngine
) -> None:
    await run(engine, OWN_INDEX)
    async with AsyncSession(engine) as session, session.begin():
        first = await writer.insert(session, draft(key="k", idempotency_key="a"))
        assert await writer.insert(session, draft(key="k", idempotency_key="a")) is None
        with pytest.raises(IntegrityError, match=r'no live duplicate(.|\n)*constraint "own"'):
            await writer.insert(session, draft(key="k", idempotency_key="b"))
    assert list(await subject.rows()) == [first]


async def test_a_copy_that_is_not_written_is_named(
    writer: PostgresWriter, subject: PostgresSubject, engine: AsyncEngine
) -> None:
    [kept] = await put(subject, draft("q=>kafka".replace("=>", "-"), key="k"))
    await run(engine, "UPDATE outbox SET queue = 'q=>kafka'", OWN_INDEX)
    async with AsyncSession(engine) as session, session.begin():
        with pytest.raises(IntegrityError, match=r'no live duplicate(.|\n)*constraint "own"'):
            await writer.insert(session, copied(key="k", idempotency_key="new"))
    assert list(await subject.rows()) == [kept]


async def test_duplicates_alone_are_left_out_as_ever(
    writer: PostgresWriter, subject: PostgresSubject, engine: AsyncEngine
) -> None:
    async with AsyncSession(engine) as session, session.begin():
        kept = await writer.insert_many(session, [copied(idempotency_key="a"), copied(idempotency_key="b")])
        again = [copied(idempotency_key=key) for key in ("a", "c", "c", "b")]
        [new] = await writer.insert_many(session, again)
        assert await writer.insert_many(session, again) == []
    assert sorted(await queues(subject)) == [(queue, key) for queue in ("q", "q=>kafka") for key in ("a", "b", "c")]
    assert [row_id for row_id in await subject.rows() if row_id in (*kept, new)] == [*kept, new]


# --- races


@contextmanager
def before(engine: AsyncEngine, part: str, act: Callable[[], None]) -> Iterator[None]:
    """Act before the first statement that has ``part`` in it reaches the database."""
    acted = False

    def listener(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal acted
        if not acted and part in statement:
            acted = True
            act()

    event.listen(engine.sync_engine, "before_cursor_execute", listener)
    yield
    event.remove(engine.sync_engine, "before_cursor_execute", listener)
    assert acted


async def test_a_duplicate_that_is_settled_meanwhile_makes_room(
    writer: PostgresWriter, subject: PostgresSubject, engine: AsyncEngine, sync_engine: Engine
) -> None:
    [old] = await put(subject, draft(idempotency_key="a"))

    def settle() -> None:
        with sync_engine.begin() as connection:
            connection.execute(text("DELETE FROM outbox"))

    async with AsyncSession(engine) as session, session.begin():
        with before(engine, "AS MATERIALIZED", settle):
            new = await writer.insert(session, draft(idempotency_key="a"))
    assert new is not None
    assert new > old
    assert list(await subject.rows()) == [new]


async def test_a_duplicate_that_comes_meanwhile_is_one(
    writer: PostgresWriter, subject: PostgresSubject, engine: AsyncEngine, sync_engine: Engine
) -> None:
    [taken] = await put(subject)
    await number_from(engine, taken)
    come: list[int | None] = []

    def publish() -> None:
        with sync_engine.begin() as connection:
            come.append(writer.insert_sync(connection, draft(idempotency_key="a")))

    async with AsyncSession(engine) as session, session.begin():
        with before(engine, "SAVEPOINT", publish):
            assert await writer.insert(session, draft(idempotency_key="a")) is None
    assert list(await subject.rows()) == [taken, *come]


# --- triggers

SUPPRESSING = (
    "CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN IF NEW.queue <> ALL (TG_ARGV) THEN RETURN NEW; END IF; RETURN NULL; END $$"
)


@pytest.mark.parametrize("suppressed", ["q", "q=>kafka"])
@pytest.mark.parametrize("identity", [{}, {"idempotency_key": "a"}, {"timer_id": "t"}], ids=str)
async def test_a_row_that_a_trigger_suppresses_is_no_success(
    writer: PostgresWriter, subject: PostgresSubject, engine: AsyncEngine, identity: dict[str, str], suppressed: str
) -> None:
    trigger = f"CREATE TRIGGER own BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION suppress('{suppressed}')"
    await run(engine, SUPPRESSING, trigger)
    messages = [copied(**identity)] if suppressed == "q=>kafka" else [draft(**identity), copied(**identity)]
    async with AsyncSession(engine) as session, session.begin():
        for message in messages:
            with pytest.raises(NotWrittenError, match=f"the message to '({suppressed}|q)' and wrote no row"):
                await writer.insert(session, message)
            with pytest.raises(NotWrittenError):
                await writer.insert_many(session, [message])
        kept = await writer.insert(session, draft(queue="other"))
    assert list(await subject.rows()) == [kept]

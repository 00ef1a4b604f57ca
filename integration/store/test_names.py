"""Tables may have any name that PostgreSQL keeps, in any schema."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Connection, MetaData, Table, create_engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.schema import CreateSchema

from faststream_outbox import make_dlq_table, make_outbox_table
from faststream_outbox._values.outcome import Dead, Delivered, Retry, Settlement
from tests.store.suite import ME, claim, draft, failing, ids, put, settle, shards

from .subject import PostgresSubject

NAMES = [
    'say "hi"',
    "it's",
    "UPPER Case",
    "a:b",
    ":name",
    "a::b:c",
    "back\\slash",
    "back\\:slash",
    "100%",
    "%s %% %d",
    "Größe-表-🐘",
    "semi;colon -- comment",
    "{dlq_table}",
    "{planned_anew}",
    "select",
    "$1",
    "x" * 63,
    "é" * 31,
]


@pytest.fixture
def sync_connection(database_url: str) -> Iterator[Connection]:
    """As plain SQLAlchemy with psycopg gives it, whose way with percent signs is another."""
    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        yield connection
    engine.dispose()


async def created(engine: AsyncEngine, name: str, schema: str | None = None) -> PostgresSubject:
    metadata = MetaData()
    tables: list[Table] = [make_outbox_table(metadata, name, schema=schema)]
    tables.append(make_dlq_table(metadata, f"{name[:10]} dead", schema=schema))
    async with engine.begin() as connection:
        if schema is not None:
            await connection.execute(CreateSchema(schema, if_not_exists=True))
        await connection.run_sync(metadata.create_all)
    return PostgresSubject(engine, *tables)


async def walk_through_every_statement(subject: PostgresSubject, connection: Connection) -> None:
    async with asyncio.timeout(10), subject.store.listen(ME) as line:
        assert line is not None
        [first] = await put(subject, draft(key="k", idempotency_key="i"))
        assert await anext(aiter(line)) == "q"
    async with subject.transaction() as session:
        assert await subject.writer.insert(session, draft(idempotency_key="i")) is None
        assert len(await subject.writer.insert_many(session, [draft(), draft(idempotency_key="i")])) == 1
        await subject.writer.insert(session, draft(timer_id="t", activate_in=timedelta(hours=1)))
        assert await subject.writer.cancel_timer(session, queue="q", timer_id="t")
        assert len(await subject.writer.fetch_unprocessed(session, queue=None, limit=10)) == 2
    async with failing(subject.transaction()) as session:
        assert await subject.writer.insert(session, draft()) is not None
    assert subject.writer.insert_sync(connection, draft()) is not None
    connection.commit()
    rows = await claim(subject)
    assert len(rows) == 3
    assert await subject.store.renew(rows, lease_seconds=60, token=ME) == set(ids(rows))
    await subject.store.rescue(token=ME, suspects=frozenset())
    await subject.store.settle(
        [Settlement(rows[0], Dead("rejected")), Settlement(rows[1], Retry(0)), Settlement(rows[2], Delivered())],
        token=ME,
    )
    assert await subject.store.outlook(shards())
    async with subject.store.hand_over(shards(), limit=10) as hand_over:
        assert hand_over is not None
        await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
    assert await subject.rows() == {}
    assert list(await subject.dead()) == [first]
    parking = PostgresSubject(subject.engine, subject.outbox_table, None)
    [second] = await put(parking)
    await settle(parking, await claim(parking), Dead("rejected"))
    assert list(await parking.dead()) == [second]


@pytest.mark.parametrize("name", NAMES)
async def test_any_name_of_a_table(engine: AsyncEngine, sync_connection: Connection, name: str) -> None:
    await walk_through_every_statement(await created(engine, name), sync_connection)


@pytest.mark.parametrize("schema", ["other", "Other Schema", 'a"b', "a:b.c", "100%s", "表"])
async def test_any_name_of_a_schema(engine: AsyncEngine, sync_connection: Connection, schema: str) -> None:
    await walk_through_every_statement(await created(engine, "outbox", schema), sync_connection)


@pytest.fixture
async def neighbours(engine: AsyncEngine) -> list[PostgresSubject]:
    """Tables that are easily mixed up."""
    homes = [("outbox", None), ("outbox", "one"), ("outbox", "two"), ("b:outbox", "a"), ("outbox", "a:b")]
    return [await created(engine, name, schema) for name, schema in homes]


async def test_neighbours_share_neither_channel_nor_rows_nor_locks(neighbours: list[PostgresSubject]) -> None:
    for subject in neighbours:
        others = [other for other in neighbours if other is not subject]
        async with asyncio.timeout(10), subject.store.listen(ME) as line:
            assert line is not None
            for number, other in enumerate(others):
                await put(other, draft(f"other {number}", key="k"))
            await put(subject, draft("own", key="k"))
            assert await anext(aiter(line)) == "own"
            async with subject.store.hand_over(shards("own"), limit=9) as mine:
                assert mine is not None
                for number, other in enumerate(others):
                    assert await claim(other, "own") == []
                    async with other.store.hand_over(shards(f"other {number}"), limit=9) as theirs:
                        assert theirs is not None
                        await theirs.settle([Settlement(row, Delivered()) for row in theirs.rows])
                await mine.settle([Settlement(row, Delivered()) for row in mine.rows])


async def test_one_queue_of_two_tables_has_two_locks(neighbours: list[PostgresSubject]) -> None:
    first, second, *_ = neighbours
    await put(first, draft(key="k"))
    await put(second, draft(key="k"))
    async with first.store.hand_over(shards(), limit=9) as mine, second.store.hand_over(shards(), limit=9) as theirs:
        assert mine is not None
        assert theirs is not None


async def test_indexes_of_long_names_stay_apart(engine: AsyncEngine) -> None:
    metadata = MetaData()
    tables = [make_outbox_table(metadata, "x" * 60 + end) for end in ("one", "two")]
    tables += [make_dlq_table(metadata, "y" * 60 + end) for end in ("one", "two")]
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        found = await connection.execute(text("SELECT indexname FROM pg_indexes WHERE tablename ~ '^(x{60}|y{60})'"))
        names = set(found.scalars())
    declared = {index.name for table in tables for index in table.indexes}
    assert len(declared) == 2 * 7 + 2
    # None was cut by the server, and the four primary keys' indexes are there beside them.
    assert declared <= names
    assert len(names) == len(declared) + 4

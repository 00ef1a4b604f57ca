"""Processes that call one table differently, with its schema or without, meet: in locks, and in what they hear."""

import asyncio

import pytest
from sqlalchemy import MetaData, Table, text
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import make_outbox_table
from faststream_outbox._store.postgres.listener import channel_of
from faststream_outbox._store.postgres.statements import quote_table
from faststream_outbox._values.outcome import Retry, Settlement
from tests.store.suite import ME, OTHER, draft, ids, put, shards_of

from .subject import PostgresSubject

QUALIFIED = make_outbox_table(MetaData(), schema="public")
# As versions before this one locked a shard, and as later ones may ring.
LOCK_BY_NAME = "SELECT pg_try_advisory_xact_lock(hashtextextended(:name || '/' || :queue, :shard))"


@pytest.fixture(params=["outbox", "public.outbox"])
def pair(request: pytest.FixtureRequest, engine: AsyncEngine, outbox_table: Table) -> list[PostgresSubject]:
    """One table by both of its names, in either order."""
    tables = [outbox_table, QUALIFIED] if request.param == "outbox" else [QUALIFIED, outbox_table]
    return [PostgresSubject(engine, table, None) for table in tables]


async def test_a_shard_is_worked_on_by_one_whatever_the_table_is_called(pair: list[PostgresSubject]) -> None:
    one, other = pair
    written = await put(one, *[draft(key="k")] * 3)
    shard = await shards_of(one, written[0])
    async with one.store.hand_over(shard, limit=10) as mine:
        assert mine is not None
        async with asyncio.timeout(5), other.store.hand_over(shard, limit=10) as theirs:
            assert theirs is None
        await mine.settle([Settlement(mine.rows[0], Retry(60.0))])
    async with other.store.hand_over(shard, limit=10) as theirs:
        assert theirs is not None
        assert ids(theirs.rows) == []


@pytest.mark.parametrize("named", ["same", "other"])
async def test_processes_of_earlier_versions_still_keep_out(
    pair: list[PostgresSubject], engine: AsyncEngine, named: str
) -> None:
    subject, _ = pair
    [written] = await put(subject, draft(key="k"))
    [shard] = await shards_of(subject, written)
    name = quote_table(subject.outbox_table)
    values = {"name": name if named == "same" else f"another {name}", "queue": shard.queue, "shard": shard.number}
    async with engine.begin() as earlier:
        assert (await earlier.execute(text(LOCK_BY_NAME), values)).scalar_one()
        async with subject.store.hand_over([shard], limit=10) as taken:
            assert (taken is None) is (named == "same")


async def test_they_are_kept_out(pair: list[PostgresSubject], engine: AsyncEngine) -> None:
    subject, _ = pair
    [written] = await put(subject, draft(key="k"))
    [shard] = await shards_of(subject, written)
    values = {"name": quote_table(subject.outbox_table), "queue": shard.queue, "shard": shard.number}
    async with subject.store.hand_over([shard], limit=10) as taken, engine.begin() as earlier:
        assert taken is not None
        assert not (await earlier.execute(text(LOCK_BY_NAME), values)).scalar_one()


async def test_publishing_by_either_name_is_heard_by_both(pair: list[PostgresSubject]) -> None:
    one, other = pair
    async with asyncio.timeout(10), one.store.listen(ME) as first, other.store.listen(OTHER) as second:
        assert first is not None
        assert second is not None
        for publisher in pair:
            await put(publisher, draft())
            assert [await anext(aiter(line)) for line in (first, second)] == ["q", "q"]


async def test_the_channel_of_what_the_table_is_is_heard_too(pair: list[PostgresSubject], engine: AsyncEngine) -> None:
    async with asyncio.timeout(10), pair[0].store.listen(ME) as line:
        assert line is not None
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_notify('outbox:' || CAST('outbox'::regclass AS oid), 'later')"))
        assert await anext(aiter(line)) == "later"


async def test_consumers_of_earlier_versions_hear_what_is_published(pair: list[PostgresSubject]) -> None:
    """They listen to the name that they have for the table, and so do processes that are deployed together."""
    subject, _ = pair
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with subject.engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        name = "outbox:outbox" if subject.outbox_table.schema is None else "outbox:public.outbox"
        assert name == channel_of(subject.outbox_table)
        await driver.add_listener(name, lambda *about: heard.put_nowait(about[-1]))
        await put(subject, draft())
        async with asyncio.timeout(10):
            assert await heard.get() == "q"
        await driver.reset()


async def test_who_listens_before_the_table_is_there_hears_of_it_later(engine: AsyncEngine) -> None:
    metadata = MetaData()
    subject = PostgresSubject(engine, make_outbox_table(metadata, "later"), None)
    async with asyncio.timeout(10), subject.store.listen(ME) as line:
        assert line is not None
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        await put(subject, draft())
        assert await anext(aiter(line)) == "q"

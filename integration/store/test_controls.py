"""Pauses and the audit log in PostgreSQL."""

import pytest
from sqlalchemy import MetaData, Table, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import make_outbox_control_table, make_outbox_table, make_position_table
from faststream_outbox._store.postgres.controls import PostgresControls
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox._values.control import PausedKey
from tests.store.suite.controls import ORDERS, Controls, Open, scopes
from tests.store.suite.subject import ME, shards


@pytest.fixture
async def control_table(engine: AsyncEngine) -> Table:
    table = make_outbox_control_table(MetaData(), 'odd "name:s')
    async with engine.begin() as connection:
        await connection.run_sync(table.metadata.create_all)
    return table


@pytest.fixture
def store(engine: AsyncEngine, outbox_table: Table, control_table: Table) -> PostgresStore:
    return PostgresStore(engine, outbox_table, control_table=control_table)


@pytest.fixture
def controls(store: PostgresStore) -> PostgresControls:
    assert store.controls is not None
    return store.controls


@pytest.fixture
def listening(store: PostgresStore) -> Open:
    return lambda: store.listen(ME)


class TestPostgresControls(Controls):
    pass


async def test_outboxes_share_a_control_table(
    engine: AsyncEngine, controls: PostgresControls, control_table: Table
) -> None:
    other = make_outbox_table(MetaData(), "other_outbox")
    async with engine.begin() as connection:
        await connection.run_sync(other.metadata.create_all)
    others = PostgresControls(engine, other, control_table)
    await controls.pause(ORDERS, who="alice", why=None, until=None)
    assert await others.pauses() == []
    assert await others.resume(ORDERS, who="bob", why=None) == 0
    assert await others.audit(limit=9, before=None, action=None) == []
    assert await scopes(controls) == [ORDERS]


async def test_an_outbox_has_one_name_here(
    engine: AsyncEngine, controls: PostgresControls, control_table: Table
) -> None:
    """Processes may call the table with its schema or without."""
    await controls.pause(ORDERS, who="alice", why=None, until=None)
    same = PostgresControls(engine, make_outbox_table(MetaData(), schema="public"), control_table)
    assert await scopes(same) == [ORDERS]


async def test_a_table_that_is_not_there_is_no_pause(engine: AsyncEngine, outbox_table: Table) -> None:
    absent = PostgresControls(engine, outbox_table, make_outbox_control_table(MetaData(), "absent"))
    assert await absent.pauses() is None
    no_outbox = make_outbox_table(MetaData(), "nothing")
    table = make_outbox_control_table(MetaData())
    async with engine.begin() as connection:
        await connection.run_sync(table.metadata.create_all)
    with pytest.raises(DBAPIError, match="nothing"):
        await PostgresControls(engine, no_outbox, table).pauses()


async def test_times_that_python_does_not_know(
    engine: AsyncEngine, controls: PostgresControls, control_table: Table
) -> None:
    insert = control_table.insert().values(outbox="public.outbox", who="sql", action="pause", what={"queue": "orders"})
    async with engine.begin() as connection:
        await connection.execute(insert)
        await connection.execute(text("""UPDATE "odd ""name\\:s" SET until = 'infinity', at = '-infinity'"""))
    [pause] = await controls.pauses() or ()
    assert pause.until is not None
    assert (pause.until.year, pause.since.year) == (9999, 1)
    [line] = await controls.audit(limit=1, before=None, action=None)
    assert line.at.year == 1


async def test_what_every_process_reads_stands_in_an_index_of_its_own(
    engine: AsyncEngine, controls: PostgresControls
) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text(
                """INSERT INTO "odd ""name\\:s" (outbox, who, action, what) """
                """SELECT 'public.outbox', 'alice', 'replay', '{}' FROM generate_series(1, 20000)"""
            )
        )
        await connection.execute(text("ANALYZE"))
    await controls.pause(ORDERS, who="alice", why=None, until=None)
    statement = controls._pauses._statement
    async with engine.begin() as connection:
        explain = text("EXPLAIN (ANALYZE, BUFFERS OFF) " + statement.text).bindparams(**statement.compile().params)
        plan = "\n".join((await connection.execute(explain)).scalars())
    assert "pauses_idx" in plan
    assert 'Seq Scan on "odd' not in plan


@pytest.mark.parametrize("forwarder", [None, "relay"])
@pytest.mark.parametrize("leaps", [False, True])
async def test_each_statement_that_takes_rows_passes_by_paused_keys(
    engine: AsyncEngine, outbox_table: Table, forwarder: str | None, leaps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    positions = make_position_table(MetaData())
    async with engine.begin() as connection:
        await connection.run_sync(positions.metadata.create_all)
        for key in ("k", "l"):
            sql = "INSERT INTO outbox (queue, key, idempotency_key, payload) VALUES ('q', :key, :key, '')"
            await connection.execute(text(sql), {"key": key})
    store = PostgresStore(engine, outbox_table, None, positions)
    if leaps:
        monkeypatch.setattr(store._floors._leaps, "are_worth_while", lambda _: True)
    paused = [PausedKey("q", "k"), PausedKey("other", "l")]
    async with store.hand_over(shards("q"), limit=99, breadth=16, paused=paused, forwarder=forwarder) as taken:
        assert taken is not None
        assert [row.key for row in taken.rows] == ["l"]

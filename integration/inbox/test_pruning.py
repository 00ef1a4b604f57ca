"""Entries go when no copy can meet them any more: in batches, politely, and only those of the consumer."""

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import MetaData, Table, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from faststream_outbox import ConfigError, Inbox, InvalidSessionError, SchemaError, make_inbox_table
from faststream_outbox._store.postgres.entries import IDENTITY
from faststream_outbox._store.postgres.statements import load_for
from integration.broker.observing import Table as Observer
from integration.broker.observing import Traffic, eventually

from .test_accepting import copy_of

DAY = timedelta(days=1)
FILL = """
    INSERT INTO inbox (consumer, queue, idempotency_key, accepted_at)
    SELECT :consumer, 'orders', 'old-' || n, now() - make_interval(days => 10) - make_interval(secs => n)
    FROM generate_series(1, :count) AS n
    UNION ALL SELECT :consumer, 'orders', 'new-' || n, now() FROM generate_series(1, 5) AS n
"""


async def fill(engine: AsyncEngine, count: int, consumer: str = "billing") -> None:
    async with engine.begin() as connection:
        await connection.execute(text(FILL), {"consumer": consumer, "count": count})


@pytest.mark.parametrize(("count", "batches"), [(0, 1), (99, 1), (100, 2), (250, 3)])
async def test_an_engine_deletes_all_that_is_old_in_batches(
    engine: AsyncEngine, inbox: Inbox, table: Observer, traffic: Traffic, count: int, batches: int
) -> None:
    await fill(engine, count)
    # Someone looks on, so each statement can be counted.
    assert await inbox.prune(engine, older_than=DAY, batch_size=100) == count
    assert sum("DELETE FROM inbox" in each for each in traffic.statements) == batches
    assert await table.count(name="inbox") == 5
    assert await inbox.prune(engine, older_than=DAY) == 0


async def test_a_session_deletes_one_batch_in_its_transaction(
    engine: AsyncEngine, inbox: Inbox, table: Observer
) -> None:
    await fill(engine, 30)
    async with AsyncSession(engine) as session:
        assert await inbox.prune(session, older_than=DAY, batch_size=20) == 20
        await session.rollback()
    assert await table.count(name="inbox") == 35
    async with AsyncSession(engine) as session, session.begin():
        assert await inbox.prune(session, older_than=DAY, batch_size=20) == 20
    assert await table.count(name="inbox") == 15
    # The oldest went.
    assert await table.count("idempotency_key = 'old-1'", name="inbox") == 1


async def test_other_consumers_keep_their_entries(engine: AsyncEngine, inbox: Inbox, table: Observer) -> None:
    await fill(engine, 10)
    await fill(engine, 10, "shipping")
    assert await inbox.prune(engine, older_than=DAY) == 10
    assert await table.count("consumer = 'shipping'", name="inbox") == 15


async def test_what_another_pruning_has_locked_is_not_waited_for(engine: AsyncEngine, inbox: Inbox) -> None:
    await fill(engine, 30)
    async with AsyncSession(engine) as session:
        assert await inbox.prune(session, older_than=DAY, batch_size=10) == 10
        async with asyncio.timeout(10):
            assert await inbox.prune(engine, older_than=DAY) == 20
        await session.commit()


async def test_handlers_do_not_wait_for_a_pruning(engine: AsyncEngine, inbox: Inbox) -> None:
    await fill(engine, 30)
    async with AsyncSession(engine) as session, AsyncSession(engine) as handler, asyncio.timeout(10):
        assert await inbox.prune(session, older_than=DAY) == 30
        assert await inbox.accept(handler, copy_of())


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "SERIALIZABLE"])
async def test_an_engine_of_any_level(engine: AsyncEngine, inbox: Inbox, level: str) -> None:
    await fill(engine, 30)
    assert await inbox.prune(engine.execution_options(isolation_level=level), older_than=DAY, batch_size=20) == 30


async def test_a_repeat_after_its_entry_is_gone_is_accepted(engine: AsyncEngine, inbox: Inbox) -> None:
    await fill(engine, 1)
    async with AsyncSession(engine) as session, session.begin():
        assert not await inbox.accept(session, copy_of("old-1"))
    await inbox.prune(engine, older_than=DAY)
    async with AsyncSession(engine) as session, session.begin():
        assert await inbox.accept(session, copy_of("old-1"))


@pytest.mark.parametrize("older_than", [timedelta(0), timedelta(days=-1), timedelta(days=4000), 3600, None])
async def test_a_span_that_makes_no_sense_is_refused(engine: AsyncEngine, inbox: Inbox, older_than: Any) -> None:
    with pytest.raises(ConfigError, match=r"^older_than: must be a timedelta above 0"):
        await inbox.prune(engine, older_than=older_than)
    with pytest.raises(ConfigError, match=r"^batch_size: must be an integer"):
        await inbox.prune(engine, older_than=DAY, batch_size=0)
    with pytest.raises(InvalidSessionError):
        await inbox.prune("engine", older_than=DAY)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^engine: must be an AsyncEngine"):
        async with AsyncSession(engine) as session, inbox.pruning(session, older_than=DAY):  # type: ignore[arg-type]
            pytest.fail("began with a session")


async def test_the_index_is_walked_and_nothing_else_is_read(engine: AsyncEngine, inbox: Inbox) -> None:
    """Also with the statistics of the empty table, and not once more what the batch before has deleted."""
    async with engine.begin() as connection:
        await connection.execute(text("ANALYZE inbox"))
    await fill(engine, 20_000)
    await fill(engine, 20_000, "shipping")
    statement = load_for(make_inbox_table(MetaData()), "inbox_prune")
    async with engine.connect() as connection:
        explain = text(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, FORMAT JSON) {statement.text}").bindparams(
            planned_anew=True
        )
        given = {"consumer": "billing", "older_than": DAY, "limit": 1000, "since": None}
        [(plan,)] = (await connection.execute(explain, given)).all()
        await connection.rollback()
    nodes = list(_nodes(plan[0]["Plan"]))
    scans = {node.get("Index Name") or node["Node Type"] for node in nodes if "Scan" in node["Node Type"]}
    assert scans == {"inbox_accepted_idx", "Tid Scan", "CTE Scan"}
    [walk] = [node for node in nodes if node.get("Index Name") == "inbox_accepted_idx"]
    assert walk["Actual Rows"] <= 1001


def _nodes(plan: dict[str, Any]) -> Any:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


# --- now and then


async def test_pruning_goes_on_as_long_as_its_context(engine: AsyncEngine, inbox: Inbox, table: Observer) -> None:
    await fill(engine, 10)
    async with inbox.pruning(engine, older_than=8 * DAY, every=timedelta(milliseconds=50)):
        await eventually(lambda: _is(table, 5))
        await fill(engine, 0, "shipping")
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE inbox SET accepted_at = now() - interval '9 days'"))
        await eventually(lambda: _is(table, 5))
    names = [task.get_name() for task in asyncio.all_tasks()]
    assert not [name for name in names if "pruner" in name]


async def _is(table: Observer, count: int) -> bool:
    return await table.count(name="inbox") == count


async def test_pruning_outlives_an_outage_and_says_so_once(
    engine: AsyncEngine, inbox: Inbox, table: Observer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "faststream_outbox")
    await fill(engine, 10)
    await table.query("ALTER TABLE inbox RENAME TO away")
    async with inbox.pruning(engine, older_than=8 * DAY, every=timedelta(milliseconds=10)):
        await eventually(lambda: "pruning of inbox 'billing'" in caplog.text)
        await table.query("ALTER TABLE away RENAME TO inbox")
        await eventually(lambda: "pruning of inbox 'billing': works again" in caplog.text)
    assert await table.count(name="inbox") == 5
    assert len([each for each in caplog.records if each.levelno >= logging.ERROR]) == 1


async def test_a_retention_that_is_too_short_is_warned_of_at_the_start(
    engine: AsyncEngine, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    async with inbox.pruning(engine, older_than=6 * DAY):
        pass
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "inbox 'billing': entries are kept for 6 days, 0:00:00, and a copy may come up to 7 days" in record.message
    caplog.clear()
    async with inbox.pruning(engine, older_than=7 * DAY), inbox.pruning(engine, older_than=DAY, longest_copy=DAY):
        pass
    assert not caplog.records


# --- the table


async def test_the_declared_table_passes(engine: AsyncEngine, inbox: Inbox) -> None:
    await inbox.validate_schema(engine)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ("DROP TABLE inbox", "inbox: there is no such table"),
        ("ALTER TABLE inbox DROP COLUMN accepted_at", "inbox: column 'accepted_at' is missing"),
        ("DROP INDEX inbox_accepted_idx", "inbox: index 'inbox_accepted_idx' is missing"),
        ("ALTER TABLE inbox DROP CONSTRAINT inbox_pkey", "the primary key is not (consumer, queue, idempotency_key)"),
        (
            f"ALTER TABLE inbox DROP CONSTRAINT inbox_pkey, ADD PRIMARY KEY ({', '.join(IDENTITY)}, accepted_at)",
            "the primary key is not (consumer, queue, idempotency_key), so repeats cannot be known",
        ),
        (
            "ALTER TABLE inbox DROP CONSTRAINT inbox_pkey, ADD PRIMARY KEY (consumer, idempotency_key)",
            "the primary key is (consumer, idempotency_key), not (consumer, queue, idempotency_key)",
        ),
        ("ALTER TABLE inbox ADD COLUMN tenant text NOT NULL", "column 'tenant' is not declared"),
    ],
)
async def test_a_difference_is_named_with_what_to_do(
    engine: AsyncEngine, inbox: Inbox, change: str, difference: str
) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(change))
    with pytest.raises(SchemaError, match="migrate what make_inbox_table declares, then validate again") as raised:
        await inbox.validate_schema(engine)
    assert any(difference in each for each in raised.value.differences), raised.value.differences


async def test_another_unique_index_of_the_identity_will_do(engine: AsyncEngine, inbox: Inbox) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE inbox DROP CONSTRAINT inbox_pkey"))
        await connection.execute(text("CREATE UNIQUE INDEX mine ON inbox (idempotency_key, queue, consumer)"))
    await inbox.validate_schema(engine)
    async with AsyncSession(engine) as session, session.begin():
        assert await inbox.accept(session, copy_of())
        assert not await inbox.accept(session, copy_of())


@pytest.mark.parametrize("name", ["", "x" * 256, "a\x00", 7])
def test_a_consumer_that_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match=r"^consumer: "):
        Inbox(make_inbox_table(MetaData()), consumer=name)


@pytest.mark.parametrize("table", [None, "inbox", Table("inbox", MetaData())])
def test_a_table_that_is_none_of_ours_is_refused(table: Any) -> None:
    with pytest.raises(ConfigError, match=r"^inbox_table: .*make_inbox_table"):
        Inbox(table, consumer="billing")

"""The dead-letter table knows whose letters it has, and takes any ids; one of an earlier release goes on as it did."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import MetaData, Table, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from faststream_outbox import make_dlq_table, make_outbox_table
from faststream_outbox._values.dead_letter import Selection
from faststream_outbox._values.outcome import Dead, Settlement
from tests.store.suite import ME, claim, draft, put

from .subject import PostgresSubject

ALL = Selection()
OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"

TO_BEFORE = "ALTER TABLE outbox_dlq DROP COLUMN outbox, ADD PRIMARY KEY (id)"
"""Makes the dead-letter table what releases without origins have declared."""


async def run(engine: AsyncEngine, *statements: str) -> None:
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def die(subject: PostgresSubject, *bodies: bytes) -> list[int]:
    """Publish messages and let them fail for good; return their ids."""
    row_ids = await put(subject, *(draft(body=body) for body in bodies))
    rows = await claim(subject, limit=len(bodies))
    assert await subject.store.settle([Settlement(row, Dead("rejected", "e")) for row in rows], token=ME) == []
    return row_ids


async def letters(subject: PostgresSubject) -> list[bytes]:
    return [letter.row.payload for letter in await subject.dead_letters.list(None, ALL, limit=100)]


async def ready(subject: PostgresSubject) -> list[bytes]:
    return sorted(found.row.payload for found in (await subject.rows()).values())


async def parked(subject: PostgresSubject) -> Sequence[str]:
    async with subject.engine.connect() as connection:
        statement = text(f"SELECT last_exception FROM {subject.outbox_table.fullname} WHERE failed_at IS NOT NULL")
        return list((await connection.execute(statement)).scalars())


@pytest.fixture
def subject(engine: AsyncEngine, outbox_table: Table, dlq_table: Table) -> PostgresSubject:
    return PostgresSubject(engine, outbox_table, dlq_table)


@pytest.fixture
async def neighbour(engine: AsyncEngine, dlq_table: Table) -> PostgresSubject:
    """Another outbox table with the same dead-letter table, in a schema that is to be quoted."""
    metadata = MetaData()
    outbox_table = make_outbox_table(metadata, "out:box's", schema="Other")
    async with engine.begin() as connection:
        await connection.execute(text('CREATE SCHEMA "Other"'))
        await connection.run_sync(metadata.create_all)
    return PostgresSubject(engine, outbox_table, dlq_table)


async def test_two_outboxes_share_a_table_and_each_has_its_own_letters(
    subject: PostgresSubject, neighbour: PostgresSubject
) -> None:
    mine = await die(subject, b"mine 1", b"mine 2")
    theirs = await die(neighbour, b"theirs 1", b"theirs 2", b"theirs 3")
    assert set(mine) < set(theirs)
    assert await letters(subject) == [b"mine 1", b"mine 2"]
    assert await letters(neighbour) == [b"theirs 1", b"theirs 2", b"theirs 3"]
    assert await neighbour.dead_letters.count(None, ALL) == 3
    assert await subject.dead_letters.replay(None, ALL, limit=1) == 1
    assert await subject.dead_letters.replay(None, ALL, limit=100) == 1
    assert await ready(subject) == [b"mine 1", b"mine 2"]
    assert await ready(neighbour) == []
    assert await subject.dead_letters.discard(None, ALL, limit=100) == 0
    assert await neighbour.dead_letters.discard(None, ALL, limit=2) == 2
    assert await letters(neighbour) == [b"theirs 3"]


async def test_however_a_process_calls_its_outbox_the_letters_are_the_same(
    subject: PostgresSubject, dlq_table: Table
) -> None:
    other_name = make_outbox_table(MetaData(), schema="public")
    await die(subject, b"by one name")
    assert await letters(PostgresSubject(subject.engine, other_name, dlq_table)) == [b"by one name"]


async def test_g2_ids_that_begin_anew_meet_no_letter_of_before(subject: PostgresSubject) -> None:
    before = await die(subject, b"old 1", b"old 2")
    await run(subject.engine, "TRUNCATE outbox RESTART IDENTITY")
    assert await die(subject, b"new 1", b"new 2") == before
    assert await letters(subject) == [b"old 1", b"old 2", b"new 1", b"new 2"]
    assert await parked(subject) == []
    assert await subject.dead_letters.discard(None, ALL, limit=1) == 1
    assert await letters(subject) == [b"old 2", b"new 1", b"new 2"]
    assert await subject.dead_letters.replay(None, ALL, limit=100) == 3
    assert await ready(subject) == [b"new 1", b"new 2", b"old 2"]


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (["DROP TABLE outbox_dlq"], "not moved to the dead-letter table: UndefinedTableError"),
        (
            ["ALTER TABLE outbox_dlq ADD CONSTRAINT few CHECK (queue <> 'q')"],
            "not moved to the dead-letter table: CheckViolationError",
        ),
    ],
    ids=["missing", "refusing"],
)
async def test_g2_a_letter_that_cannot_be_moved_is_parked_and_says_why(
    subject: PostgresSubject, statements: Sequence[str], said: str
) -> None:
    await run(subject.engine, *statements)
    await die(subject, b"1", b"2")
    assert [text[: len(said) + 3] for text in await parked(subject)] == [f"e; {said}"] * 2


async def test_g2_without_permission_a_letter_is_parked(subject: PostgresSubject, outbox_table: Table) -> None:
    await run(
        subject.engine,
        "CREATE ROLE worker",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON outbox TO worker",
    )
    try:
        rows_of = PostgresSubject(subject.engine, outbox_table, subject.dlq_table)
        await put(rows_of, draft())
        rows = await claim(rows_of)
        async with subject.engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text("SET ROLE worker"))
            settlements = [Settlement(row, Dead("rejected", "e")) for row in rows]
            assert await rows_of.store._settler.write(connection, settlements, token=ME) == []
            await connection.execute(text("RESET ROLE"))
        [said] = await parked(subject)
        assert "permission denied for table outbox_dlq" in said
    finally:
        await run(subject.engine, "DROP OWNED BY worker", "DROP ROLE worker")


async def test_g2_of_several_only_the_one_that_cannot_be_moved_is_parked(subject: PostgresSubject) -> None:
    await run(subject.engine, "ALTER TABLE outbox_dlq ADD CONSTRAINT c CHECK (encode(payload, 'escape') <> 'guilty')")
    await die(subject, b"1", b"2", b"guilty", b"4", b"5")
    assert len(await parked(subject)) == 1
    assert sorted(await letters(subject)) == [b"1", b"2", b"4", b"5", b"guilty"]


async def test_a_table_of_an_earlier_release_goes_on_as_before(subject: PostgresSubject) -> None:
    await run(subject.engine, TO_BEFORE)
    before = await die(subject, b"1", b"2", b"3")
    assert await parked(subject) == []
    assert await letters(subject) == [b"1", b"2", b"3"]
    assert await subject.dead_letters.count(None, ALL) == 3
    await run(subject.engine, "TRUNCATE outbox RESTART IDENTITY")
    assert await die(subject, b"4") == before[:1]
    [said] = await parked(subject)
    assert "UniqueViolationError" in said
    assert await subject.dead_letters.discard(None, Selection(reason="rejected"), limit=1) == 1
    assert await letters(subject) == [b"1", b"2", b"3"]
    assert await subject.dead_letters.discard(None, ALL, limit=1) == 1
    assert await subject.dead_letters.replay(None, ALL, limit=100) == 2
    assert await ready(subject) == [b"2", b"3"]


async def test_the_documented_migration_makes_it_what_is_declared(
    subject: PostgresSubject, neighbour: PostgresSubject
) -> None:
    await run(subject.engine, TO_BEFORE)
    await die(subject, b"of before")
    [migration] = re.findall(r"```sql\n(ALTER TABLE outbox_dlq.*?)```", OPERATING.read_text(), re.DOTALL)
    # While both connections have prepared their statements for the table as it was.
    await run(subject.engine, migration)
    assert await subject.store.differences() == {}
    await die(subject, b"mine")
    await die(neighbour, b"theirs")
    # Nobody knows whose the first one is.
    assert await letters(subject) == [b"of before", b"mine"]
    assert await letters(neighbour) == [b"of before", b"theirs"]
    assert await neighbour.dead_letters.replay(None, ALL, limit=1) == 1
    assert await letters(subject) == [b"mine"]


async def test_letters_of_a_table_in_parts_are_told_apart(engine: AsyncEngine, outbox_table: Table) -> None:
    """Rows of two partitions may stand in places that are called the same."""
    dlq_table = make_dlq_table(MetaData(), "parted")
    columns = "(LIKE outbox_dlq INCLUDING DEFAULTS, PRIMARY KEY (id, outbox, failed_at))"
    await run(
        engine,
        f"CREATE TABLE parted {columns} PARTITION BY LIST (id)",
        *(f"CREATE TABLE parted_{number} PARTITION OF parted FOR VALUES IN ({number})" for number in (1, 2)),
    )
    subject = PostgresSubject(engine, outbox_table, dlq_table)
    await die(subject, b"1", b"2")
    async with AsyncSession(engine) as session:
        assert await subject.dead_letters.replay(session, ALL, limit=1) == 1
        assert await subject.dead_letters.count(session, ALL) == 1
        await session.rollback()
    assert await subject.dead_letters.discard(None, ALL, limit=1) == 1
    assert await letters(subject) == [b"2"]
    assert await subject.dead_letters.replay(None, ALL, limit=1) == 1
    assert await ready(subject) == [b"2"]

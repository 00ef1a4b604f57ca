"""A row that SQL has written, and that no one can read, is the trouble of nobody but itself."""

import json
from typing import Any

import pytest
from sqlalchemy import Table, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox._values.dead_letter import Selection
from faststream_outbox._values.limits import MAX_HEADERS_BYTES
from faststream_outbox._values.outcome import DELIVERED, Dead, Released, Retry, Settlement
from faststream_outbox.schema import CHECKS, MAX_STORED_HEADERS_BYTES, SHARDS
from tests.store.suite import ME, OTHER, claim, draft, ids, put, settle, shards

from .subject import PostgresSubject

DEEP = "[" * 5000 + "]" * 5000
WRITTEN: dict[str, dict[str, Any]] = {
    "very deep": {"headers": DEEP},
    "a number of 5000 digits": {"headers": '{"n": 1' + "0" * 5000 + "}"},
    "a number": {"headers": '{"retries": 3}'},
    "no object": {"headers": "[]"},
    "large": {"headers": '{"n": "' + "x" * 2 * MAX_STORED_HEADERS_BYTES + '"}', "is_compressed": False},
    "no time": {"created_at": "infinity", "first_attempt_at": "-infinity", "last_attempt_at": "infinity"},
    "before Christ": {"created_at": "4000-01-01 BC", "first_attempt_at": "290000-01-01"},
    "no more deliveries": {"deliveries_count": 2147483647},
}
REFUSED = [
    {"headers": "[]"},
    {"headers": '"x"'},
    {"headers": "null"},
    {"queue": "q" * 256},
    {"key": "k" * 1025},
    {"idempotency_key": "ä" * 128},
    {"timer_id": "t" * 256},
    {"headers": json.dumps({"n": "x" * MAX_STORED_HEADERS_BYTES})},
]
GOOD = {
    "headers": json.dumps({"n": "x" * (MAX_STORED_HEADERS_BYTES - 100)}),
    "queue": "q" * 255,
    "key": "k" * 1024,
    "idempotency_key": "ä" * 127,
    "timer_id": "t" * 255,
}
HAS_A_PROBLEM = {"very deep", "a number of 5000 digits", "a number", "no object", "large"}


@pytest.fixture
def subject(engine: AsyncEngine, outbox_table: Table, dlq_table: Table) -> PostgresSubject:
    return PostgresSubject(engine, outbox_table, dlq_table)


@pytest.fixture(params=WRITTEN)
def written(request: pytest.FixtureRequest) -> str:
    return request.param


async def write(subject: PostgresSubject, name: str, queue: str = "bad") -> int:
    """Write a row by SQL, as somebody might who goes around `publish`."""
    columns = {"headers": "{}", **WRITTEN[name]}
    async with subject.engine.begin() as connection:
        # As tables are that were made before there were checks.
        for check in CHECKS:
            await connection.execute(text(f"ALTER TABLE outbox DROP CONSTRAINT IF EXISTS outbox_{check}_check"))
        if not columns.pop("is_compressed", True):
            for table in ("outbox", "outbox_dlq"):
                await connection.execute(text(f"ALTER TABLE {table} ALTER COLUMN headers SET STORAGE EXTERNAL"))
        literals = ", ".join(f"'{value}'" for value in columns.values())
        statement = f"""
            INSERT INTO outbox (queue, key, idempotency_key, payload, {", ".join(columns)})
            VALUES ('{queue}', 'k', 'i', 'body', {literals}) RETURNING id
        """
        return int((await connection.exec_driver_sql(statement)).scalar_one())


async def waiting(subject: PostgresSubject) -> set[int]:
    """The ids of all rows that are no dead letters. SQLAlchemy would try to read their headers."""
    async with subject.engine.connect() as connection:
        return set((await connection.execute(text("SELECT id FROM outbox WHERE failed_at IS NULL"))).scalars())


async def test_a_claim_gives_it_beside_the_others(subject: PostgresSubject, written: str) -> None:
    bad = await write(subject, written)
    good = await put(subject, *[draft("q", key=f"k{number}", headers={"a": "b"}) for number in range(20)])
    rows = {row.id: row for row in await claim(subject, "q", "bad")}
    assert rows.keys() == {bad, *good}
    assert (rows[bad].problem is not None) is (written in HAS_A_PROBLEM)
    assert all(rows[row_id].headers == {"a": "b", "content-type": "text/plain"} for row_id in good)
    await settle(subject, [rows[bad]], Dead("invalid", "no"))
    assert bad not in await waiting(subject)


async def test_a_hand_over_gives_it_beside_the_others(subject: PostgresSubject, written: str) -> None:
    bad = await write(subject, written, "q")
    good = await put(subject, *[draft("q", key="another")] * 5)
    for outcome in (Released(), Retry(0.0), DELIVERED):
        async with subject.store.hand_over(shards("q"), limit=100, breadth=SHARDS) as taken:
            assert taken is not None
            rows = {row.id: row for row in taken.rows}
            assert rows.keys() == {bad, *good}
            assert (rows[bad].problem is not None) is (written in HAS_A_PROBLEM)
            await taken.settle([Settlement(rows[bad], outcome)])
    assert await waiting(subject) == set(good)


async def test_people_can_look_at_it(subject: PostgresSubject, written: str) -> None:
    bad = await write(subject, written)
    [good] = await put(subject, draft("q"))
    async with subject.transaction() as session:
        seen = await subject.writer.fetch_unprocessed(session, queue=None, limit=10)
    assert ids(seen) == [bad, good]
    assert (seen[0].problem is not None) is (written in HAS_A_PROBLEM)


async def test_its_dead_letter_is_one_of_the_others(subject: PostgresSubject, written: str) -> None:
    bad = await write(subject, written)
    [good] = await put(subject, draft("q"))
    await settle(subject, await claim(subject, "q", "bad"), Dead("rejected", "no"))
    letters = await subject.dead_letters.list(None, Selection(), limit=10)
    assert {letter.row.id for letter in letters} == {bad, good}
    [its] = [letter for letter in letters if letter.row.id == bad]
    assert (its.row.problem is not None) is (written in HAS_A_PROBLEM)


async def test_a_dead_letter_that_the_table_would_refuse_stays_and_the_others_are_replayed(
    subject: PostgresSubject, engine: AsyncEngine, written: str
) -> None:
    bad = await write(subject, written)
    await put(subject, draft("q"))
    await settle(subject, await claim(subject, "q", "bad"), Dead("rejected", "no"))
    async with engine.begin() as connection:
        for name, check in CHECKS.items():
            await connection.execute(text(f"ALTER TABLE outbox ADD CONSTRAINT outbox_{name}_check CHECK ({check})"))
    is_refused = written in {"very deep", "no object", "large"}
    assert await subject.dead_letters.replay(None, Selection(), limit=10) == (1 if is_refused else 2)
    letters = await subject.dead_letters.list(None, Selection(), limit=10)
    assert [letter.row.id for letter in letters] == ([bad] if is_refused else [])


@pytest.mark.parametrize("columns", REFUSED, ids=str)
async def test_a_table_of_today_refuses_it(subject: PostgresSubject, columns: dict[str, str]) -> None:
    row = {"queue": "q", "key": "k", "idempotency_key": "i", "timer_id": "t", "headers": "{}"} | columns
    values = ", ".join(f"CAST(:{name} AS {'jsonb' if name == 'headers' else 'text'})" for name in row)
    statement = text(f"INSERT INTO outbox (payload, {', '.join(row)}) VALUES ('', {values})")
    async with subject.engine.begin() as connection:
        with pytest.raises(IntegrityError, match=r"outbox_(headers|sizes)_check"):
            await connection.execute(statement, row)
    async with subject.engine.begin() as connection:
        await connection.execute(statement, row | {name: GOOD[name] for name in columns})


async def test_its_lease_is_rescued(subject: PostgresSubject, written: str) -> None:
    bad = await write(subject, written)
    [good] = await put(subject, draft("q"))
    assert set(ids(await claim(subject, "q", "bad", seconds=0.0, token=OTHER))) == {bad, good}
    freed = await subject.store.rescue(token=ME, suspects=frozenset())
    assert freed.freed_queues == {"q", "bad"}


async def test_a_time_that_python_has_no_word_for_is_the_nearest_that_it_has(subject: PostgresSubject) -> None:
    await write(subject, "no time")
    [row] = await claim(subject, "bad")
    assert [row.created_at.year, row.first_attempt_at.year, row.last_attempt_at.year] == [9999, 1, 9999]


async def test_the_largest_headers_that_can_be_published_are_read(subject: PostgresSubject) -> None:
    most: dict[str, str] = {}
    names = (f"{number:x}" for number in range(10**6))
    while sum(map(len, most)) < MAX_HEADERS_BYTES - 5:
        most[next(names)] = ""
    await put(subject, draft("q", headers=most, content_type=None))
    async with subject.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE outbox ALTER COLUMN headers SET STORAGE EXTERNAL"))
        await connection.execute(text("UPDATE outbox SET headers = headers || '{}'"))
    [row] = await claim(subject)
    assert row.headers == most

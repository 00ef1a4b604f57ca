"""What PostgreSQL refuses for good harms its own row alone, whichever statement writes the outcome."""

import random
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import pytest
from sqlalchemy import MetaData, Table, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from faststream_outbox._values.outcome import Dead, Deferred, Delivered, Outcome, Released, Retry, Settlement, Unwritten
from faststream_outbox._values.row import OutboxRow
from integration.servers.postgres import PostgresServer
from tests.store.suite import ME, claim, draft, ids, put, shards

from .subject import PostgresSubject

DEAD = Dead("rejected", "ValueError: no")
GUILTY = b"guilty"

REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF encode(OLD.payload, 'escape') <> 'guilty' THEN
        RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    END IF;
    -- A claim is an UPDATE too, and is to work.
    IF TG_OP = 'UPDATE' AND NEW.acquired_token IS NOT NULL THEN RETURN NEW; END IF;
    RAISE EXCEPTION 'never this one' USING ERRCODE = '{code}';
END $$
"""
TRIGGER = "CREATE TRIGGER refuse BEFORE {when} ON outbox FOR EACH ROW EXECUTE FUNCTION refuse()"


class Case(NamedTuple):
    """A statement that writes outcomes, and where a trigger meets it."""

    outcome: Outcome
    when: str
    dead_letters: str = "parked"


CASES = {
    "delivered": Case(Delivered(), "DELETE"),
    "retry": Case(Retry(0.0, "ValueError: no"), "UPDATE"),
    "released": Case(Released(started=True), "UPDATE"),
    "deferred": Case(Deferred(7), "UPDATE"),
    "dead, parked": Case(DEAD, "UPDATE"),
    "dead, moved": Case(DEAD, "DELETE OR UPDATE", "moved"),
    "dead, held": Case(Dead("rejected", "e", holds_key=True), "UPDATE", "moved"),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    chosen: Case = request.param
    return chosen


@pytest.fixture
def subject(case: Case, engine: AsyncEngine, outbox_table: Table, dlq_table: Table) -> PostgresSubject:
    return PostgresSubject(engine, outbox_table, dlq_table if case.dead_letters == "moved" else None)


async def refuse(engine: AsyncEngine, when: str, *, code: str = "P0001") -> None:
    """Let the owner's trigger raise for rows with the marked payload."""
    async with engine.begin() as connection:
        await connection.execute(text(REFUSE.format(code=code)))
        await connection.execute(text(TRIGGER.format(when=when)))


def spied(engine: AsyncEngine) -> list[str]:
    """Return a list that gets every statement from now on."""
    statements: list[str] = []
    event.listen(
        engine.sync_engine, "before_cursor_execute", lambda _conn, _cursor, statement, *_: statements.append(statement)
    )
    return statements


async def mend(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("DROP FUNCTION refuse CASCADE"))


def settlements(rows: Sequence[OutboxRow], outcome: Outcome) -> list[Settlement]:
    return [Settlement(row, outcome) for row in rows]


def refused(unwritten: Sequence[Unwritten]) -> list[int]:
    assert all(str(each.error) == "never this one" for each in unwritten)
    return sorted(each.settlement.row.id for each in unwritten)


async def fill(subject: PostgresSubject, count: int, guilty: set[int]) -> list[int]:
    return await put(subject, *(draft(body=GUILTY if n in guilty else b"innocent") for n in range(count)))


async def still_as_they_were(subject: PostgresSubject) -> list[int]:
    """Ready rows: no outcome has changed them."""
    return [
        row_id
        for row_id, found in (await subject.rows()).items()
        if found.row.last_attempt_at is None and found.next_attempt_at is None
    ]


async def test_g2_outcomes_of_leased_rows_are_written_around_one_that_is_refused(
    subject: PostgresSubject, case: Case
) -> None:
    await refuse(subject.engine, case.when)
    row_ids = await fill(subject, 9, {4})
    rows = await claim(subject)
    unwritten = await subject.store.settle(settlements(rows, case.outcome), token=ME)
    assert refused(unwritten) == [row_ids[4]]
    assert [each.settlement for each in unwritten] == [Settlement(rows[4], case.outcome)]
    held = [row_id for row_id, found in (await subject.rows()).items() if found.token == ME]
    assert held == [row_ids[4]]
    await mend(subject.engine)
    assert await subject.store.settle([unwritten[0].settlement], token=ME) == []
    assert [found.token for found in (await subject.rows()).values() if found.token] == []


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_behind_a_pooler_too(case: Case, database_url: str, outbox_table: Table, dlq_table: Table) -> None:
    """Where a role's default keeps statements out of AUTOCOMMIT, all of a write stand in one transaction."""
    engine = create_async_engine(
        database_url, connect_args={"server_settings": {"default_transaction_isolation": "repeatable read"}}
    )
    subject = PostgresSubject(engine, outbox_table, dlq_table if case.dead_letters == "moved" else None)
    await refuse(engine, case.when)
    row_ids = await fill(subject, 9, {4})
    rows = await claim(subject)
    unwritten = await subject.store.settle(settlements(rows, case.outcome), token=ME)
    assert refused(unwritten) == [row_ids[4]]
    assert [row_id for row_id, found in (await subject.rows()).items() if found.token == ME] == [row_ids[4]]
    await engine.dispose()


async def hand_over(subject: PostgresSubject, outcomes: Sequence[Outcome]) -> Sequence[Unwritten]:
    async with subject.store.hand_over(shards(), limit=100) as hand_over:
        assert hand_over is not None
        return await hand_over.settle([Settlement(*pair) for pair in zip(hand_over.rows, outcomes, strict=True)])


async def test_g2_outcomes_of_a_hand_over_are_written_around_one_that_is_refused(
    subject: PostgresSubject, case: Case
) -> None:
    await refuse(subject.engine, case.when)
    row_ids = await fill(subject, 9, {4})
    outcomes = [case.outcome if n % 2 == 0 else Delivered() for n in range(9)]
    if case.when.startswith("DELETE") and case.dead_letters == "parked":
        # Savepoints begin with the first one that was missing.
        with pytest.raises(DBAPIError, match="never this one"):
            await hand_over(subject, outcomes)
        assert await still_as_they_were(subject) == row_ids
    unwritten = await hand_over(subject, outcomes)
    assert refused(unwritten) == [row_ids[4]]
    assert await still_as_they_were(subject) == [row_ids[4]]


# --- how PostgreSQL may refuse


REFERENCE = "CREATE TABLE sent (of_row bigint REFERENCES outbox {deferred})"


@pytest.mark.parametrize("deferred", ["", "DEFERRABLE INITIALLY DEFERRED"], ids=["at once", "at the commit"])
async def test_g2_a_foreign_key_of_the_owners_keeps_its_row_alone(
    engine: AsyncEngine, outbox_table: Table, deferred: str
) -> None:
    subject = PostgresSubject(engine, outbox_table, None)
    row_ids = await fill(subject, 6, set())
    async with engine.begin() as connection:
        await connection.execute(text(REFERENCE.format(deferred=deferred)))
        await connection.execute(text("INSERT INTO sent VALUES (:id)"), {"id": row_ids[2]})
    with pytest.raises(DBAPIError, match="foreign key"):
        await hand_over(subject, [Delivered()] * 6)
    [unwritten] = await hand_over(subject, [Delivered()] * 6)
    assert unwritten.settlement.row.id == row_ids[2]
    rows = await claim(subject)
    assert ids(rows) == [row_ids[2]]
    assert [
        each.settlement.row for each in await subject.store.settle(settlements(rows, Delivered()), token=ME)
    ] == rows


async def test_what_passes_is_raised_and_nothing_is_set_apart(engine: AsyncEngine, outbox_table: Table) -> None:
    subject = PostgresSubject(engine, outbox_table, None)
    await refuse(engine, "DELETE", code="40001")
    row_ids = await fill(subject, 3, {1})
    for _ in range(2):
        with pytest.raises(DBAPIError, match="never this one"):
            await hand_over(subject, [Delivered()] * 3)
    assert list(await subject.rows()) == row_ids
    with pytest.raises(DBAPIError, match="never this one"):
        await subject.store.settle(settlements(await claim(subject), Delivered()), token=ME)


async def test_what_looks_like_the_tables_fault_and_is_one_rows_ends_with_that_row_alone(
    engine: AsyncEngine, outbox_table: Table
) -> None:
    """A trigger may look for another table for each tenant."""
    subject = PostgresSubject(engine, outbox_table, None)
    await refuse(engine, "DELETE", code="42P01")
    row_ids = await fill(subject, 200, {77})
    left = settlements(await claim(subject, limit=200), Delivered())
    for _ in range(12):
        left = [each.settlement for each in await subject.store.settle(left, token=ME)]
    assert [settlement.row.id for settlement in left] == [row_ids[77]]


@pytest.mark.parametrize(("code", "bound"), [("P0001", 60), ("42501", 16)])
async def test_g12_a_thousand_refusals_cost_few_statements(
    engine: AsyncEngine, outbox_table: Table, code: str, bound: int
) -> None:
    subject = PostgresSubject(engine, outbox_table, None)
    await refuse(engine, "DELETE", code=code)
    await fill(subject, 1000, set(range(1000)))
    rows = await claim(subject, limit=1000)
    statements = spied(engine)
    assert len(await subject.store.settle(settlements(rows, Delivered()), token=ME)) == 1000
    assert 1 < len(statements) < bound


async def test_half_of_a_thousand_leave_at_once(engine: AsyncEngine, outbox_table: Table) -> None:
    subject = PostgresSubject(engine, outbox_table, None)
    await refuse(engine, "DELETE")
    await fill(subject, 1000, set(range(0, 1000, 2)))
    rows = await claim(subject, limit=1000)
    assert len(await subject.store.settle(settlements(rows, Delivered()), token=ME)) < 550


async def test_a_few_among_many_refused_ones_leave_in_the_end(engine: AsyncEngine, outbox_table: Table) -> None:
    """Also where those that hand them in do so in the same order each time."""
    random.seed(12)
    subject = PostgresSubject(engine, outbox_table, None)
    await refuse(engine, "DELETE")
    guilty = set(range(4, 64))
    row_ids = await fill(subject, 64, guilty)
    everything = settlements(await claim(subject, limit=64), Delivered())
    left = set(row_ids)
    for _ in range(40):
        again = [settlement for settlement in everything if settlement.row.id in left]
        left = {each.settlement.row.id for each in await subject.store.settle(again, token=ME)}
    assert left == {row_ids[number] for number in guilty}


async def test_an_ordinary_hand_over_takes_no_savepoint(engine: AsyncEngine, outbox_table: Table) -> None:
    subject = PostgresSubject(engine, outbox_table, None)
    await fill(subject, 5, set())
    statements = spied(engine)
    assert await hand_over(subject, [Delivered()] * 5) == []
    assert not [each for each in statements if "SAVEPOINT" in each or "CONSTRAINTS" in each]
    await fill(subject, 5, set())
    assert await hand_over(subject, [Delivered()] * 4 + [DEAD]) == []
    assert [each.partition(" sa_")[0] for each in statements if "SAVEPOINT" in each] == [
        "SAVEPOINT",
        "RELEASE SAVEPOINT",
    ]


@pytest.fixture
async def latin1(postgres_server: PostgresServer, metadata: MetaData) -> AsyncIterator[AsyncEngine]:
    """An engine on a database whose encoding lacks most characters."""
    with postgres_server.database("TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'") as url:
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        yield engine
        await engine.dispose()


@pytest.mark.parametrize("dead_letters", ["parked", "moved"])
async def test_g2_a_text_that_the_databases_encoding_lacks_is_written_with_escapes(
    latin1: AsyncEngine, outbox_table: Table, dlq_table: Table, dead_letters: str
) -> None:
    subject = PostgresSubject(latin1, outbox_table, dlq_table if dead_letters == "moved" else None)
    await put(subject, draft(), draft(), draft())
    rows = await claim(subject)
    outcomes = [Retry(0.0, "ValueError: Ошибка"), Dead("rejected", "ValueError: é 😀"), Dead("rejected", "plain")]
    pairs = [Settlement(*pair) for pair in zip(rows, outcomes, strict=True)]
    assert await subject.store.settle(pairs, token=ME) == []
    dead = {died.exception for died in (await subject.dead()).values()}
    assert dead == {"ValueError: \\xe9 \\U0001f600", "plain"}
    [waiting] = (await subject.rows()).values()
    assert waiting.last_exception == "ValueError: \\u041e\\u0448\\u0438\\u0431\\u043a\\u0430"
    assert await hand_over(subject, [Retry(0.0, "漢字")]) == []


SWALLOW = """
CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- As a careless hand writes it: NEW is NULL where a row is deleted.
    RETURN CASE WHEN encode(OLD.payload, 'escape') = 'guilty' AND TG_OP = 'DELETE' THEN NEW ELSE OLD END;
END $$
"""


@pytest.mark.parametrize("case", [CASES["delivered"]], indirect=True, ids=["delivered"])
async def test_g2_a_row_that_the_table_keeps_in_silence_is_not_taken_for_settled(
    subject: PostgresSubject, engine: AsyncEngine
) -> None:
    written = await put(subject, *(draft(key="k", body=body) for body in (b"good", GUILTY, b"good")))
    async with engine.begin() as connection:
        await connection.execute(text(SWALLOW))
        await connection.execute(
            text("CREATE TRIGGER swallow BEFORE DELETE ON outbox FOR EACH ROW EXECUTE FUNCTION swallow()")
        )
    async with subject.store.hand_over(shards(), limit=10) as hand_over:
        assert hand_over is not None
        [unwritten] = await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
    assert unwritten.settlement.row.id == written[1]
    assert "has to return OLD" in str(unwritten.error)
    assert list(await subject.rows()) == [written[1]]


@pytest.mark.parametrize("case", [CASES["delivered"]], indirect=True, ids=["delivered"])
async def test_a_lease_that_is_lost_is_no_row_that_the_table_keeps(subject: PostgresSubject) -> None:
    await put(subject, draft(key="k"))
    rows = await claim(subject, seconds=0)
    await subject.store.rescue(token="another", suspects=frozenset())
    assert await subject.store.settle([Settlement(row, Delivered()) for row in rows], token=ME) == []
    assert len(await subject.rows()) == 1

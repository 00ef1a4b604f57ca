"""What PostgreSQL refuses for good harms its own row alone, whichever statement writes the outcome."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from sqlalchemy import Table, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from faststream_outbox._values.outcome import Dead, Delivered, Outcome, Released, Retry, Settlement, Unwritten
from faststream_outbox._values.row import OutboxRow
from tests.store.suite import ME, claim, draft, places, put

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
    RAISE EXCEPTION 'never this one';
END $$
"""
TRIGGER = "CREATE {kind} TRIGGER refuse {when} ON outbox {deferred} FOR EACH ROW EXECUTE FUNCTION refuse()"


class Case(NamedTuple):
    """A statement that writes outcomes, and where a trigger meets it."""

    outcome: Outcome
    when: str
    dead_letters: str = "parked"


CASES = {
    "delivered": Case(Delivered(), "DELETE"),
    "retry": Case(Retry(0.0, "ValueError: no"), "UPDATE"),
    "released": Case(Released(started=True), "UPDATE"),
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


async def refuse(engine: AsyncEngine, when: str, *, kind: str = "", deferred: str = "") -> None:
    """Let the owner's trigger raise for rows with the marked payload."""
    async with engine.begin() as connection:
        await connection.execute(text(REFUSE))
        order = "AFTER" if kind else "BEFORE"
        await connection.execute(text(TRIGGER.format(kind=kind, when=f"{order} {when}", deferred=deferred)))


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
    async with subject.store.hand_over(places(), limit=100) as hand_over:
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

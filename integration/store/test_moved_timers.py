"""A timer that is published again (`timer_conflict="extend"`) while others publish, handle or send it."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from faststream_outbox._values.outcome import Delivered, Settlement
from tests.store.suite import PAST, claim, draft, put, settle, shards
from tests.store.suite.timers import extending

from .subject import PostgresSubject

HOUR = timedelta(hours=1)


@pytest.fixture
def subject(engine: AsyncEngine, outbox_table: Table) -> PostgresSubject:
    return PostgresSubject(engine, outbox_table, None)


async def move(subject: PostgresSubject, number: int) -> int | None:
    async with subject.transaction() as session:
        return await subject.writer.insert(session, extending(body=b"%d" % number, activate_in=HOUR))


@pytest.mark.parametrize("is_there", [True, False], ids=["a live one", "none yet"])
async def test_publishers_at_the_same_time_leave_one_timer(subject: PostgresSubject, is_there: bool) -> None:
    """None of them is told that it is a duplicate."""
    if is_there:
        await put(subject, draft(timer_id="t", activate_in=HOUR))
    async with asyncio.timeout(30):
        moved = await asyncio.gather(*(move(subject, number) for number in range(40)))
    assert None not in moved
    [stored] = (await subject.rows()).values()
    assert moved[int(stored.row.payload)] == stored.row.id


@pytest.mark.parametrize("is_sent", [True, False], ids=["sent", "given back"])
async def test_a_timer_that_is_being_sent_is_waited_for(subject: PostgresSubject, is_sent: bool) -> None:
    [first] = await put(subject, draft(timer_id="t", activate_at=PAST))
    async with subject.store.hand_over(shards(), limit=10) as hand_over:
        assert hand_over is not None
        moving = asyncio.create_task(move(subject, 1))
        await asyncio.wait([moving], timeout=0.3)
        assert not moving.done()
        if is_sent:
            await hand_over.settle([Settlement(row, Delivered()) for row in hand_over.rows])
    moved = await moving
    [stored] = (await subject.rows()).values()
    assert (stored.row.id, stored.row.payload) == (moved, b"1")
    assert stored.row.id > first


async def test_a_hand_over_does_not_send_what_was_moved_under_it(subject: PostgresSubject) -> None:
    await put(subject, draft(timer_id="t", activate_at=PAST))

    async def bodies() -> list[bytes]:
        async with subject.store.hand_over(shards(), limit=10) as hand_over:
            return [] if hand_over is None else [row.payload for row in hand_over.rows]

    async with subject.transaction() as session:
        await subject.writer.insert(session, extending(activate_in=HOUR))
        taking = asyncio.create_task(bodies())
        await asyncio.wait([taking], timeout=0.3)
    assert await taking == []
    assert len(await subject.rows()) == 1


async def test_a_handler_that_has_the_timer_waits_for_no_publisher(
    subject: PostgresSubject, engine: AsyncEngine
) -> None:
    await put(subject, draft(timer_id="t"))
    rows = await claim(subject)
    async with AsyncSession(engine) as session, session.begin():
        assert await subject.writer.insert(session, extending()) is None
        async with asyncio.timeout(5):
            await settle(subject, rows, Delivered())
    assert await subject.rows() == {}


async def test_each_timer_that_was_moved_is_handled_once_or_moved_again(subject: PostgresSubject) -> None:
    moved: list[int] = []
    handled: list[int] = []
    kept = 0
    is_over = False

    async def handle() -> None:
        while not is_over or await subject.rows():
            rows = await claim(subject)
            handled.extend(row.id for row in rows)
            await settle(subject, rows, Delivered())

    handling = asyncio.create_task(handle())
    for number in range(150):
        async with subject.transaction() as session:
            row_id = await subject.writer.insert(session, extending(body=b"%d" % number))
        if row_id is None:
            kept += 1
        else:
            moved.append(row_id)
        await asyncio.sleep(0)
    is_over = True
    async with asyncio.timeout(10):
        await handling
    assert handled == sorted(set(handled))
    assert set(handled) <= set(moved)
    assert handled[-1] == moved[-1]
    print(f"{len(moved)} moved, {len(handled)} handled, {kept} while a handler had it")

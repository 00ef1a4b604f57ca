"""A hand-over leaps rows that stand behind waiting ones, and passes no row by that it could take."""

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeAlias

import pytest
from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from faststream_outbox._store.postgres import floors, leaps
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox._values.dead_letter import Selection
from faststream_outbox._values.outcome import DELIVERED, Dead, Outcome, Released, Retry, Settlement
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard
from faststream_outbox.schema import SHARDS
from tests.store.suite import (
    LONG,
    ME,
    OTHER,
    claim,
    draft,
    fail_once,
    ids,
    keys_apart,
    keys_together,
    put,
    settle,
    shards,
)

from .subject import PostgresSubject

LATER = timedelta(hours=1)


class Gone(Exception):
    """Ends a hand-over without an effect."""


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows are worth a leap; a survey goes on from the edges, and never begins anew."""
    monkeypatch.setattr(leaps, "WORTH_ROWS", 1)
    monkeypatch.setattr(floors, "WALKS_APART", 1_000_000)
    monkeypatch.setattr(floors, "LONGEST_APART", 1_000_000)


@pytest.fixture(params=["parked", "moved"])
def subject(
    request: pytest.FixtureRequest, engine: AsyncEngine, outbox_table: Table, dlq_table: Table
) -> PostgresSubject:
    return PostgresSubject(engine, outbox_table, dlq_table if request.param == "moved" else None)


@pytest.fixture
async def keys(subject: PostgresSubject) -> list[str]:
    """Keys of one shard."""
    return await keys_together(subject, 3)


def leap_of(subject: PostgresSubject) -> leaps.Leap | None:
    """Return the leap of the shard that ``keys`` have."""
    return subject.store._floors._leaps._leaps.get(Shard("q", 0))


def stand_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no survey correct what was learned."""

    async def survey(*_: object) -> None: ...

    monkeypatch.setattr(floors.Floors, "survey", survey)


async def carry(subject: PostgresSubject, outcome: Outcome = DELIVERED) -> list[int]:
    """Hand over from all shards until nothing is left to take; return the ids."""
    carried: list[int] = []
    while True:
        async with subject.store.hand_over(shards("q"), limit=100, breadth=SHARDS) as taken:
            if taken is None or not taken.rows:
                return carried
            await taken.settle([Settlement(row, outcome) for row in taken.rows])
            carried += ids(taken.rows)


async def survey(subject: PostgresSubject, rounds: int = 4) -> None:
    """Let the horizon pass all rows that are there."""
    elsewhere = (await keys_apart(subject, 2))[1]
    for _ in range(rounds):
        await put(subject, draft("q", key=elsewhere))
        await carry(subject)
        await subject.store.survey(shards("q"))


Wait: TypeAlias = Callable[[PostgresSubject, str], Awaitable[list[int]]]


async def retry(subject: PostgresSubject, key: str) -> list[int]:
    return await fail_once(subject, draft("q", key=key))


async def hold(subject: PostgresSubject, key: str) -> list[int]:
    written = await put(subject, draft("q", key=key))
    assert await carry(subject, Dead("rejected", holds_key=True)) == written
    return written


async def make_due(subject: PostgresSubject, *row_ids: int) -> None:
    async with subject.engine.begin() as connection:
        statement = text("UPDATE outbox SET next_attempt_at = statement_timestamp() WHERE id = ANY (:ids)")
        await connection.execute(statement, {"ids": list(row_ids)})


async def entries_read(engine: AsyncEngine) -> int:
    """How many entries of the index of ready rows were read so far."""
    await engine.dispose()
    async with engine.connect() as connection:
        await connection.execute(text("SELECT pg_stat_force_next_flush()"))
        statement = text("SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname LIKE '%ready%'")
        return int((await connection.execute(statement)).scalar_one())


@pytest.mark.parametrize("wait", [retry, hold])
async def test_rows_behind_a_waiting_one_are_not_walked_through(
    subject: PostgresSubject, keys: list[str], monkeypatch: pytest.MonkeyPatch, wait: Wait
) -> None:
    await wait(subject, keys[0])
    await put(subject, *[draft("q", key=keys[0])] * 500)
    await survey(subject)
    stand_still(monkeypatch)
    before = await entries_read(subject.engine)
    for _ in range(5):
        written = await put(subject, draft("q", key=keys[1]))
        assert await carry(subject) == written
    assert await entries_read(subject.engine) - before < 200, "without a leap, each look reads five hundred"


@pytest.mark.parametrize("wait", [retry, hold])
async def test_the_edge_goes_on_with_new_rows(subject: PostgresSubject, keys: list[str], wait: Wait) -> None:
    await wait(subject, keys[0])
    for _ in range(3):
        behind = await put(subject, *[draft("q", key=keys[0])] * 10)
        await survey(subject)
        leap = leap_of(subject)
        assert leap is not None
        assert leap.edge > behind[-1]
    assert [barred.rows for barred in leap.barriers.values()] == [30]


@pytest.mark.parametrize("end", ["delivered", "given up"])
async def test_g4_what_stood_behind_a_retry_comes_when_that_is_over(
    subject: PostgresSubject, keys: list[str], monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    [first] = await retry(subject, keys[0])
    behind = await put(subject, *[draft("q", key=keys[0])] * 3)
    await survey(subject)
    stand_still(monkeypatch)
    other = await put(subject, draft("q", key=keys[1]))
    assert await carry(subject) == other
    await make_due(subject, first)
    if end == "delivered":
        last = await put(subject, draft("q", key=keys[0]))
        assert await carry(subject) == [first, *behind, *last]
        return
    async with subject.store.hand_over(shards("q"), limit=100, breadth=SHARDS) as taken:
        assert taken is not None
        assert ids(taken.rows) == [first]
        await taken.settle([Settlement(row, Dead("rejected")) for row in taken.rows])
    last = await put(subject, draft("q", key=keys[0]))
    assert await carry(subject) == [*behind, *last]


@pytest.mark.parametrize("end", ["replayed", "discarded"])
async def test_g4_what_stood_behind_a_held_dead_letter_comes_when_that_is_over(
    subject: PostgresSubject, keys: list[str], monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    first = await hold(subject, keys[0])
    behind = await put(subject, *[draft("q", key=keys[0])] * 3)
    await survey(subject)
    stand_still(monkeypatch)
    async with subject.transaction() as session:
        if end == "replayed":
            assert await subject.dead_letters.replay(session, Selection(queue="q"), limit=10) == 1
        else:
            assert await subject.dead_letters.discard(session, Selection(queue="q"), limit=10) == 1
            first = []
    last = await put(subject, draft("q", key=keys[0]))
    assert await carry(subject) == [*first, *behind, *last]


async def test_g4_the_end_of_one_wait_brings_its_rows_and_leaves_the_others(
    subject: PostgresSubject, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = [row_id for key in keys for row_id in await retry(subject, key)]
    behind = {key: await put(subject, *[draft("q", key=key)] * 2) for key in keys}
    more = {key: await put(subject, *[draft("q", key=key)] * 2) for key in keys}
    await survey(subject)
    stand_still(monkeypatch)
    for row_id, key in reversed(list(zip(waiting, keys, strict=True))):
        await make_due(subject, row_id)
        assert await carry(subject) == [row_id, *behind[key], *more[key]]


async def test_g4_another_process_ends_the_wait(
    subject: PostgresSubject, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It delivers the waiting row, and dies before the rest."""
    other = PostgresSubject(subject.engine, subject.outbox_table, subject.dlq_table)
    [first] = await retry(subject, keys[0])
    behind = await put(subject, *[draft("q", key=keys[0])] * 3)
    await survey(subject)
    stand_still(monkeypatch)
    await make_due(subject, first)
    async with other.store.hand_over(shards("q"), limit=1) as taken:
        assert taken is not None
        await taken.settle([Settlement(row, DELIVERED) for row in taken.rows])
    assert await carry(subject) == behind


async def test_g4_a_lane_that_dies_with_the_waiting_row_leaves_its_key_waiting(
    subject: PostgresSubject, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [first] = await retry(subject, keys[0])
    behind = await put(subject, *[draft("q", key=keys[0])] * 3)
    await survey(subject)
    stand_still(monkeypatch)
    await make_due(subject, first)
    with suppress(Gone):
        async with subject.store.hand_over(shards("q"), limit=100, breadth=SHARDS) as taken:
            assert taken is not None
            await taken.settle([Settlement(row, DELIVERED) for row in taken.rows])
            raise Gone
    assert await carry(subject) == [first, *behind]


async def test_g4_a_row_of_another_key_that_is_committed_late_is_taken(
    subject: PostgresSubject, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id is among those of rows that are leapt."""
    await retry(subject, keys[0])
    await put(subject, *[draft("q", key=keys[0])] * 3)
    await survey(subject)
    async with AsyncSession(subject.engine) as slow:
        early = await subject.writer.insert(slow, draft("q", key=keys[1]))
        await put(subject, *[draft("q", key=keys[0])] * 3)
        await survey(subject)
        stand_still(monkeypatch)
        await slow.commit()
    later = await put(subject, draft("q", key=keys[1]))
    assert await carry(subject) == [early, *later]


@pytest.mark.parametrize("way", ["released", "given back", "rescued"])
async def test_what_comes_back_among_rows_that_are_leapt_is_found_at_once(
    subject: PostgresSubject, keys: list[str], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    await retry(subject, keys[0])
    await put(subject, draft("q", key=keys[0]))
    among = await put(subject, *[draft("q", key=keys[1])] * 2)
    await put(subject, *[draft("q", key=keys[0])] * 2)
    # A handler takes rows in no order of keys.
    rows = await claim(subject, "q", seconds=0 if way == "rescued" else LONG)
    back = [row for row in rows if row.id in among]
    await survey(subject)
    assert leap_of(subject) is None, "all are leased"
    behind = await put(subject, *[draft("q", key=keys[0])] * 2)
    await survey(subject)
    leap = leap_of(subject)
    assert leap is not None
    assert leap.edge > behind[-1]
    stand_still(monkeypatch)
    if way == "released":
        await settle(subject, back, Released())
    elif way == "given back":
        await subject.store.give_back(["q"], known=[row.id for row in rows if row.id not in among], token=ME)
    else:
        await subject.store.rescue(token=OTHER, suspects=frozenset())
    assert await carry(subject) == among


async def test_of_many_barriers_the_first_are_remembered(
    subject: PostgresSubject, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaps, "MOST_BARRIERS", 2)
    waiting = [row_id for key in keys for row_id in await retry(subject, key)]
    behind = [row_id for key in keys for row_id in await put(subject, *[draft("q", key=key)] * 2)]
    await survey(subject, 8)
    leap = leap_of(subject)
    assert leap is not None
    assert (leap.edge, list(leap.barriers)) == (behind[4], waiting[:2])
    stand_still(monkeypatch)
    await make_due(subject, waiting[2])
    assert await carry(subject) == [waiting[2], *behind[4:]]
    await make_due(subject, *waiting)
    assert await carry(subject) == [*waiting[:2], *behind[:4]]


async def test_without_a_waiting_row_nothing_is_leapt(subject: PostgresSubject, keys: list[str]) -> None:
    [first] = await retry(subject, keys[0])
    behind = await put(subject, draft("q", key=keys[0]))
    await survey(subject)
    assert leap_of(subject) is not None
    await make_due(subject, first)
    assert await carry(subject) == [first, *behind]
    await survey(subject)
    assert leap_of(subject) is None


async def test_few_rows_are_not_worth_a_leap(
    subject: PostgresSubject, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaps, "WORTH_ROWS", 3)
    await retry(subject, keys[0])
    for number in range(4):
        await survey(subject)
        assert subject.store._floors._leaps.are_worth_while(shards("q")) is (number >= 3)
        await put(subject, draft("q", key=keys[0]))


async def test_what_sql_makes_ready_is_found_by_the_next_walk_from_the_beginning(
    subject: PostgresSubject, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is ready again, among those that are leapt, is what no survey from the edge on can see."""
    await retry(subject, keys[0])
    await put(subject, draft("q", key=keys[0]))
    hidden = await put(subject, draft("q", key=keys[1], activate_in=LATER))
    await put(subject, draft("q", key=keys[0]))
    await survey(subject)
    async with subject.engine.begin() as connection:
        await connection.execute(text("UPDATE outbox SET next_attempt_at = NULL WHERE id = :id"), {"id": hidden[0]})
    assert await carry(subject) == []
    monkeypatch.setattr(subject.store._floors, "_walk_due", 0.0)
    await subject.store.survey(shards("q"))
    assert await carry(subject) == hidden


async def test_ids_that_begin_anew_are_learned_anew(subject: PostgresSubject, keys: list[str]) -> None:
    await retry(subject, keys[0])
    await put(subject, draft("q", key=keys[0]))
    await survey(subject)
    assert leap_of(subject) is not None
    async with subject.engine.begin() as connection:
        await connection.execute(text("TRUNCATE outbox RESTART IDENTITY"))
    await subject.store.survey(shards("q"))
    assert leap_of(subject) is None


async def look(store: PostgresStore) -> list[int]:
    """Return what a hand-over of all shards would take."""
    found: list[int] = []
    try:
        async with store.hand_over(shards("q"), limit=16_000, breadth=SHARDS) as taken:
            found = [] if taken is None else ids(taken.rows)
            raise Gone  # noqa: TRY301 - the store is to roll back
    except Gone:
        return found


class Chances:
    """Does to rows whatever may happen to them, in whatever order."""

    def __init__(self, subject: PostgresSubject, keys: Sequence[str | None], seed: int) -> None:
        self.subject = subject
        self.keys = keys
        self.random = random.Random(seed)
        self.slow: list[AsyncSession] = []
        """Transactions that have published and are open."""
        self.claimed: list[Any] = []
        self.acts = {
            self.publish: 6,
            self.publish_slowly: 1,
            self.commit: 3,
            self.hand_over: 3,
            self.lease: 1,
            self.release: 1,
            self.wake: 1,
            self.decide: 1,
            self.learn: 5,
        }

    async def act(self) -> None:
        await self.random.choices([*self.acts], [*self.acts.values()])[0]()

    async def publish(self) -> None:
        drafts = [draft("q", key=self.random.choice(self.keys)) for _ in range(self.random.randint(1, 6))]
        await put(self.subject, *drafts)

    async def publish_slowly(self) -> None:
        session = AsyncSession(self.subject.engine)
        self.slow.append(session)
        for _ in range(self.random.randint(1, 3)):
            await self.subject.writer.insert(session, draft("q", key=self.random.choice(self.keys)))

    async def commit(self) -> None:
        if self.slow:
            async with self.slow.pop(self.random.randrange(len(self.slow))) as session:
                await session.commit()

    async def hand_over(self) -> None:
        async with self.subject.store.hand_over(shards("q"), limit=64, breadth=SHARDS) as taken:
            if taken is not None:
                await taken.settle([*self.outcomes(taken.rows)])

    def outcomes(self, rows: Sequence[OutboxRow]) -> Iterator[Settlement]:
        """Decide as lanes do: nothing of a key behind a row that is not delivered."""
        outcomes: Sequence[Outcome] = (DELIVERED, Retry(LONG), Retry(0.0), Dead("no"), Dead("no", holds_key=True))
        held: set[str | None] = set()
        for row in rows:
            [outcome] = self.random.choices(outcomes, (6, 2, 1, 1, 1))
            is_unsent = row.key in held or self.random.random() < 0.2
            if is_unsent or outcome is not DELIVERED:
                held.add(row.key)
            if not is_unsent:
                yield Settlement(row, outcome)

    async def lease(self) -> None:
        self.claimed += await claim(self.subject, "q", limit=self.random.randint(1, 4))

    async def release(self) -> None:
        rows, self.claimed = self.claimed, []
        await settle(self.subject, rows, self.random.choice([DELIVERED, Released(), Retry(LONG), Dead("no")]))

    async def wake(self) -> None:
        """Let the time of some rows come."""
        rows = await self.subject.rows()
        waiting = [row_id for row_id, row in rows.items() if row.next_attempt_at is not None and row.token is None]
        await make_due(self.subject, *(row_id for row_id in waiting if self.random.random() < 0.3))

    async def decide(self) -> None:
        """Replay dead letters, or discard them."""
        dead = self.subject.dead_letters
        act = self.random.choice([dead.replay, dead.discard])
        async with self.subject.transaction() as session:
            await act(session, Selection(queue="q"), limit=self.random.randint(1, 3))

    async def learn(self) -> None:
        await self.subject.store.survey(shards("q"))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_g4_a_look_that_leaps_finds_what_one_without_finds(
    subject: PostgresSubject, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """A store that has learned nothing says what is right."""
    monkeypatch.setattr(leaps, "MOST_BARRIERS", 3)
    chances = Chances(subject, [*await keys_together(subject, 6), None], seed)
    leapt = 0
    for _ in range(100):
        await chances.act()
        plain = PostgresStore(subject.engine, subject.outbox_table, subject.dlq_table)
        leapt += subject.store._floors._leaps.are_worth_while(shards("q"))
        assert await look(subject.store) == await look(plain)
    while chances.slow:
        await chances.commit()
    assert leapt > 10, "else this says nothing"

"""Looks for ready rows begin behind what was delivered, and pass no row by."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import asyncpg
import pytest
from sqlalchemy import Table, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from faststream_outbox._store.postgres import floors
from faststream_outbox._store.postgres.horizon import LARGEST_ID
from faststream_outbox._store.postgres.writer import PostgresWriter
from faststream_outbox._values.dead_letter import Selection
from faststream_outbox._values.outcome import DELIVERED, Dead, Outcome, Released, Retry, Settlement
from faststream_outbox.schema import SHARDS
from integration.faults.snapshots import held_snapshot
from integration.servers.missing import missing
from integration.servers.postgres import OwnPostgres, PostgresServer
from tests.engine.fakes import Clock
from tests.store.suite import LONG, ME, OTHER, claim, draft, ids, put, settle, shards

from .subject import PostgresSubject


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each survey also walks through the shards from their beginning."""
    monkeypatch.setattr(floors, "WALKS_APART", 0)


@pytest.fixture
def subject(engine: AsyncEngine, outbox_table: Table) -> PostgresSubject:
    return PostgresSubject(engine, outbox_table, None)


@pytest.fixture
async def observer(database_url: str) -> AsyncIterator[AsyncEngine]:
    """Looks on from outside."""
    engine = create_async_engine(database_url)
    yield engine
    await engine.dispose()


async def carry(subject: PostgresSubject, outcome: Outcome = DELIVERED) -> list[int]:
    """Survey all shards, hand over from them, and return the ids."""
    await subject.store.survey(shards("q"))
    async with subject.store.hand_over(shards("q"), limit=100, breadth=SHARDS) as taken:
        if taken is None:
            return []
        await taken.settle([Settlement(row, outcome) for row in taken.rows])
        return ids(taken.rows)


async def handle(subject: PostgresSubject) -> list[int]:
    """Survey all shards, claim from them, and return the ids."""
    await subject.store.survey(shards("q"))
    rows = await claim(subject)
    await settle(subject, rows, DELIVERED)
    return ids(rows)


Take: TypeAlias = Callable[[PostgresSubject], Awaitable[list[int]]]


@pytest.fixture(params=[carry, handle])
def take(request: pytest.FixtureRequest) -> Take:
    """As a lane does, or as a handler's process does."""
    return request.param


async def rise(subject: PostgresSubject, rounds: int = 4, *, take: Take = carry) -> None:
    """Deliver rows until the floors are above all that was there: what was seen is settled with the second survey."""
    for _ in range(rounds):
        await put(subject, *[draft("q", key="other")] * 2)
        await take(subject)


async def deliver_a_thousand(subject: PostgresSubject, take: Take) -> None:
    """Leave so many behind, below the floors."""
    await put(subject, *[draft("q", key=f"k{number}") for number in range(1000)])
    for _ in range(10):
        await take(subject)
    await rise(subject, take=take)


def stand_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No survey from now on."""

    async def survey(*_: object) -> None: ...

    monkeypatch.setattr(floors.Floors, "survey", survey)


async def entries_read(engine: AsyncEngine) -> int:
    """How many entries of the index of ready rows were read so far."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT pg_stat_force_next_flush()"))
    statement = text("SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname LIKE '%ready%'")
    async with engine.connect() as connection:
        return int((await connection.execute(statement)).scalar_one())


async def test_what_was_delivered_is_not_walked_through_though_it_cannot_be_cleaned_away(
    subject: PostgresSubject, observer: AsyncEngine, monkeypatch: pytest.MonkeyPatch, take: Take
) -> None:
    async with held_snapshot(observer):
        await deliver_a_thousand(subject, take)
        stand_still(monkeypatch)
        # Statistics of a connection are written when it is idle.
        await subject.engine.dispose()
        before = await entries_read(observer)
        for number in range(5):
            await put(subject, draft("q", key=f"k{number}"))
            assert len(await take(subject)) == 1
        await subject.engine.dispose()
        read = await entries_read(observer) - before
    assert read < 200, "without floors, each of the five reads a thousand, twice"


async def test_a_survey_does_not_walk_through_what_was_delivered_each_time(
    subject: PostgresSubject, observer: AsyncEngine, monkeypatch: pytest.MonkeyPatch, take: Take
) -> None:
    """After hours with an open snapshot that takes seconds."""
    async with held_snapshot(observer):
        await deliver_a_thousand(subject, take)
        monkeypatch.setattr(floors, "WALKS_APART", 1_000_000)
        monkeypatch.setattr(floors, "LONGEST_APART", 1_000_000)
        await rise(subject, 1, take=take)
        await subject.engine.dispose()
        before = await entries_read(observer)
        # The floors go on rising meanwhile.
        await rise(subject, 100, take=take)
        await subject.engine.dispose()
        read = await entries_read(observer) - before
    assert read < 3000, "each walk from the beginning reads a thousand"


@pytest.mark.parametrize("key", ["k", "other"], ids=["a shard of its own", "a shard with later ready rows"])
async def test_g4_a_row_that_is_committed_late_comes_before_later_ones_of_its_key(
    subject: PostgresSubject, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, take: Take, key: str
) -> None:
    await rise(subject, take=take)
    async with AsyncSession(engine) as slow:
        early = await subject.writer.insert(slow, draft("q", key=key))
        await rise(subject, take=take)
        stand_still(monkeypatch)
        await slow.commit()
    later = await put(subject, draft("q", key=key))
    assert await take(subject) == [early, *later]


async def test_the_lookout_sees_a_row_that_is_committed_late(subject: PostgresSubject, engine: AsyncEngine) -> None:
    """Its id is lower than those of rows that were delivered before it was there."""
    async with AsyncSession(engine) as late:
        await subject.writer.insert(late, draft())
        await rise(subject)
        assert await subject.store.outlook(shards("q")) == {}
        await late.commit()
    assert (await subject.store.outlook(shards("q")))["q"].is_ready


async def test_g4_a_transaction_that_begins_between_two_surveys_is_waited_for(
    subject: PostgresSubject, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, take: Take
) -> None:
    """Later ids than its own are seen before it is seen itself."""
    await rise(subject, take=take)
    async with AsyncSession(engine) as slow:
        with monkeypatch.context() as between:
            stand_still(between)
            early = await subject.writer.insert(slow, draft("q", key="k"))
            await rise(subject, 1, take=take)
        await rise(subject, take=take)
        stand_still(monkeypatch)
        await slow.commit()
    later = await put(subject, draft("q", key="k"))
    assert await take(subject) == [early, *later]


@pytest.mark.parametrize("restarts", [False, True], ids=["prepared", "prepared before a restart"])
async def test_a_transaction_that_is_prepared_is_waited_for(
    subject: PostgresSubject, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, *, restarts: bool
) -> None:
    """A restart gives it another name; in releases before 14.1, PREPARE did."""
    if restarts and not isinstance(postgres_server, OwnPostgres):
        missing("a PostgreSQL named by the environment is not ours to restart")
    # What has notified cannot be prepared.
    silent = PostgresWriter(subject.engine, subject.outbox_table, notify=False)
    async with AsyncSession(subject.engine) as another, subject.engine.connect() as connection:
        # So that the next mark is set when ids above the early one were seen.
        await subject.writer.insert(another, draft("elsewhere"))
        await rise(subject)
        early = await silent.insert(connection, draft("q", key="k"))
        await rise(subject)
        await another.rollback()
        await rise(subject, 1)
        await connection.execute(text("PREPARE TRANSACTION 'slow'"))
    if restarts:
        await subject.engine.dispose()
        await asyncio.to_thread(postgres_server.stop)
        await asyncio.to_thread(postgres_server.start)
    await rise(subject)
    stand_still(monkeypatch)
    async with subject.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("COMMIT PREPARED 'slow'"))
    later = await put(subject, draft("q", key="k"))
    assert await carry(subject) == [early, *later]


@pytest.mark.parametrize("rounds", [3, 4, 5])
async def test_g4_rows_behind_a_retry_are_not_left_below(
    rounds: int, subject: PostgresSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await put(subject, draft("q", key="k"))
    assert await carry(subject, Retry(0.3)) == first
    behind = await put(subject, draft("q", key="k"), draft("q", key="k"))
    await rise(subject, rounds)
    stand_still(monkeypatch)
    last = await put(subject, draft("q", key="k"))
    await asyncio.sleep(0.4)
    carried: list[int] = []
    while batch := await carry(subject):
        carried += batch
    assert carried == [*first, *behind, *last]


async def test_g4_a_dead_letter_that_held_its_key_comes_first_when_it_is_replayed(
    subject: PostgresSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await put(subject, draft("q", key="k"))
    assert await carry(subject, Dead("rejected", holds_key=True)) == first
    behind = await put(subject, draft("q", key="k"))
    await rise(subject)
    stand_still(monkeypatch)
    async with subject.transaction() as session:
        assert await subject.dead_letters.replay(session, Selection(queue="q"), limit=10) == 1
    carried: list[int] = []
    while batch := await carry(subject):
        carried += batch
    assert carried == [*first, *behind]


@pytest.mark.parametrize("way", ["released", "given back", "rescued"])
async def test_what_comes_back_below_the_floor_is_found_at_once(
    subject: PostgresSubject, monkeypatch: pytest.MonkeyPatch, way: str, take: Take
) -> None:
    written = await put(subject, draft("q", key="k"), draft("q", key="k"))
    rows = await claim(subject, seconds=0 if way == "rescued" else LONG)
    await rise(subject)
    stand_still(monkeypatch)
    if way == "released":
        # In the wrong order.
        for row in reversed(rows):
            await settle(subject, [row], Released())
    elif way == "given back":
        await subject.store.give_back(["q"], known=[], token=ME)
    else:
        await subject.store.rescue(token=OTHER, suspects=frozenset())
    later = await put(subject, draft("q", key="k"))
    assert await take(subject) == [*written, *later]


async def test_ids_that_begin_anew_are_learned_anew(
    subject: PostgresSubject, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rise(subject)
    async with engine.begin() as connection:
        await connection.execute(text("TRUNCATE outbox RESTART IDENTITY"))
    written = await put(subject, draft("q", key="k"))
    assert await carry(subject) == written == [1]
    assert await carry(subject) == []
    stand_still(monkeypatch)
    written = await put(subject, draft("q"), draft("q", key="k"))
    assert await carry(subject) == written == [2, 3]


async def test_ids_that_begin_anew_are_noticed_before_a_walk_from_the_beginning_would_find_them(
    subject: PostgresSubject, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, take: Take
) -> None:
    monkeypatch.setattr(floors, "WALKS_APART", 1_000_000)
    monkeypatch.setattr(floors, "LONGEST_APART", 1_000_000)
    await rise(subject, take=take)
    async with engine.begin() as connection:
        await connection.execute(text("TRUNCATE outbox RESTART IDENTITY"))
    written = await put(subject, *[draft("q", key=f"k{number}") for number in range(5)])
    assert await take(subject) == written == [1, 2, 3, 4, 5]


async def test_a_restarted_or_promoted_server_is_walked_through_from_the_beginning(
    subject: PostgresSubject, postgres_server: PostgresServer, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standby that lacks the last transactions gives their ids once more."""
    if not isinstance(postgres_server, OwnPostgres):
        missing("a PostgreSQL named by the environment is not ours to restart")
    await rise(subject)
    stand_still(monkeypatch)
    async with engine.begin() as connection:
        await connection.execute(text("TRUNCATE outbox RESTART IDENTITY"))
    written = await put(subject, draft("q", key="other"))
    assert await carry(subject) == [], "only here, where ids are given once more by the same server"
    await engine.dispose()
    await asyncio.to_thread(postgres_server.stop)
    await asyncio.to_thread(postgres_server.start)
    assert await carry(subject) == written


@pytest.fixture
async def forgetful(
    postgres_server: PostgresServer, database_url: str, outbox_table: Table
) -> AsyncIterator[PostgresSubject]:
    """A subject whose commits are lost when the server crashes, for it does not wait until they are written."""
    if not isinstance(postgres_server, OwnPostgres):
        missing("a PostgreSQL named by the environment is not ours to crash")
    postgres_server.execute("ALTER SYSTEM SET wal_writer_delay = '10s'", "SELECT pg_reload_conf()")
    engine = create_async_engine(database_url, connect_args={"server_settings": {"synchronous_commit": "off"}})
    yield PostgresSubject(engine, outbox_table, None)
    await engine.dispose()
    postgres_server.execute("ALTER SYSTEM RESET wal_writer_delay", "SELECT pg_reload_conf()")


async def crash(postgres_server: PostgresServer, *engines: AsyncEngine) -> None:
    """Kill one process of the server: the server ends all others, and recovers under the same first process."""
    connection = await asyncpg.connect(postgres_server.url.set(drivername="postgresql").render_as_string())
    with suppress(asyncpg.PostgresError, OSError):
        await connection.execute("COPY (SELECT) TO PROGRAM 'kill -9 $PPID'")
    connection.terminate()
    for engine in engines:
        await engine.dispose()
    assert isinstance(postgres_server, OwnPostgres)
    await asyncio.to_thread(wait_until, lambda: can_be_asked(postgres_server))


def can_be_asked(postgres_server: PostgresServer) -> bool:
    try:
        postgres_server.execute("SELECT 1")
    except (OSError, asyncpg.PostgresError):
        return False
    return True


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30.0
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_g4_ids_that_a_crash_lets_the_server_give_once_more_are_found_at_once(
    *,
    subject: PostgresSubject,
    forgetful: PostgresSubject,
    postgres_server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    take: Take,
) -> None:
    await rise(subject)
    # So many that the sequence has given more than it has written in advance.
    lost = await put(forgetful, *[draft("q", key=f"k{number}") for number in range(200)])
    await take(forgetful)
    await rise(forgetful, take=take)
    stand_still(monkeypatch)
    await crash(postgres_server, subject.engine, forgetful.engine)
    written = await put(subject, draft("q", key="k"))
    assert written < lost[-1:], "nothing was lost"
    assert await take(forgetful) == written


async def test_g4_what_a_crash_brings_back_is_found_at_once(
    *,
    subject: PostgresSubject,
    forgetful: PostgresSubject,
    postgres_server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    take: Take,
) -> None:
    """Rows whose delivery is lost, and comes before that of later rows of their key."""
    back = await put(subject, *[draft("q", key="k")] * 3)
    assert await take(forgetful) == back
    await rise(forgetful, take=take)
    stand_still(monkeypatch)
    await crash(postgres_server, subject.engine, forgetful.engine)
    later = await put(subject, draft("q", key="k"))
    assert await take(forgetful) == [*back, *later]


@pytest.mark.parametrize("chosen", [10**12, LARGEST_ID])
async def test_a_row_with_an_id_of_its_own_lets_no_floor_rise_above_others(
    subject: PostgresSubject, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, chosen: int
) -> None:
    async def keep_the_chosen() -> list[int]:
        await subject.store.survey(shards("q", "other"))
        async with subject.store.hand_over(shards("q", "other"), limit=100, breadth=2 * SHARDS) as taken:
            assert taken is not None
            await taken.settle([Settlement(row, Retry(0.0) if row.id == chosen else DELIVERED) for row in taken.rows])
            return ids(taken.rows)

    # A walk from the beginning would mend the floors, and these are few rows to walk through.
    monkeypatch.setattr(floors, "WALKS_APART", 1_000_000)
    monkeypatch.setattr(floors, "LONGEST_APART", 1_000_000)
    async with engine.begin() as connection:
        written_by_sql = "INSERT INTO outbox (id, queue, idempotency_key, payload) VALUES (:id, 'other', 'i', '')"
        await connection.execute(text(written_by_sql), {"id": chosen})
    for _ in range(6):
        await put(subject, draft("q", key="k"))
        assert len(await keep_the_chosen()) == 2
    floor = max(subject.store._floors._floors.values())
    stand_still(monkeypatch)
    written = await put(subject, *[draft("q", key=f"k{number}") for number in range(20)])
    assert await keep_the_chosen() == [*written, chosen]
    assert floor > 1, "they rise all the same"


@pytest.fixture
async def unprivileged(subject: PostgresSubject, database_url: str) -> AsyncIterator[PostgresSubject]:
    """The subject for a role that may not read the sequence."""
    async with subject.engine.begin() as connection:
        await connection.execute(text("CREATE ROLE looks_only LOGIN"))
        await connection.execute(text("GRANT SELECT, UPDATE, DELETE ON outbox TO looks_only"))
    engine = create_async_engine(make_url(database_url).set(username="looks_only", password=None))
    yield PostgresSubject(engine, subject.outbox_table, None)
    await engine.dispose()
    async with subject.engine.begin() as connection:
        await connection.execute(text("DROP OWNED BY looks_only"))
        await connection.execute(text("DROP ROLE looks_only"))


async def test_a_role_that_may_not_read_the_sequence_can_work_all_the_same(
    subject: PostgresSubject, unprivileged: PostgresSubject
) -> None:
    for _ in range(5):
        await put(subject, draft("q", key="k"), draft("q", key="k"))
        assert len(await carry(unprivileged)) == 2
    assert max(unprivileged.store._floors._floors.values()) > 1


async def test_a_walk_that_meets_a_row_below_a_floor_lets_all_be_learned_anew(
    subject: PostgresSubject, unprivileged: PostgresSubject, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else says that ids begin anew to a role that may not read the sequence."""
    for _ in range(5):
        await put(subject, draft("q", key="k"), draft("q", key="other"))
        assert len(await carry(unprivileged)) == 2
    async with engine.begin() as connection:
        await connection.execute(text("TRUNCATE outbox RESTART IDENTITY"))
    written = await put(subject, draft("q", key="other"))
    assert await carry(unprivileged) == written == [1]
    stand_still(monkeypatch)
    written = await put(subject, draft("q", key="k"))
    assert await carry(unprivileged) == written == [2], "in another shard than the row that was met"


@pytest.mark.parametrize("step", ["_look_for_writers", "_walk"])
async def test_nothing_waits_for_a_survey(
    subject: PostgresSubject, monkeypatch: pytest.MonkeyPatch, take: Take, step: str
) -> None:
    """Neither claims and hand-overs, nor outcomes and renewals."""
    surveying, held = asyncio.Event(), asyncio.Event()
    walk = getattr(floors.Floors, step)

    async def take_long(*arguments: object, **options: object) -> None:
        surveying.set()
        await held.wait()
        await walk(*arguments, **options)

    await rise(subject)
    monkeypatch.setattr(floors.Floors, step, take_long)
    survey = asyncio.create_task(subject.store.survey(shards("q")))
    await surveying.wait()
    stand_still(monkeypatch)
    async with asyncio.timeout(5):
        for _ in range(5):
            written = await put(subject, draft("q", key="k"))
            assert await take(subject) == written
            await put(subject, draft("q", key="k"))
            subject.store.reserve()
            rows = await claim(subject)
            assert await subject.store.renew(rows, lease_seconds=60, token=ME) == {*ids(rows)}
            await settle(subject, rows, DELIVERED)
    held.set()
    await survey
    await subject.store.let_go()


async def test_floors_rise_though_a_walk_from_the_beginning_fails(
    subject: PostgresSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take too long; then it is not tried again at once."""
    await rise(subject)
    before = max(subject.store._floors._floors.values())
    monkeypatch.setattr(floors, "WALKS_APART", 1_000_000)
    walk, walks = floors.Floors._walk, []

    async def fail(*arguments: object, is_whole: bool = False) -> None:
        if is_whole:
            walks.append(1)
            raise TimeoutError
        await walk(*arguments)

    monkeypatch.setattr(floors.Floors, "_walk", fail)
    await put(subject, *[draft("q", key="other")] * 2)
    with pytest.raises(TimeoutError):
        await carry(subject)
    await rise(subject)
    assert max(subject.store._floors._floors.values()) > before
    assert len(walks) == 1


async def test_a_walk_in_which_the_process_was_asleep_is_followed_by_another_in_time(
    subject: PostgresSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floors, "WALKS_APART", 100)
    await rise(subject)
    clock, walks = Clock(), []
    clock.now = time.monotonic() + floors.LONGEST_APART
    began = clock.now
    monkeypatch.setattr(floors, "time", clock)

    async def sleep_through(*_: object, is_whole: bool = False) -> None:
        if is_whole:
            walks.append(clock.now)
            clock.now += 3600

    monkeypatch.setattr(floors.Floors, "_walk", sleep_through)
    await carry(subject)
    clock.now += floors.LONGEST_APART - 1
    await carry(subject)
    clock.now += 1
    await carry(subject)
    assert walks == [began, began + 3600 + floors.LONGEST_APART]


async def test_a_survey_that_fails_is_made_again(
    subject: PostgresSubject, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: Sequence[int] = await put(subject, draft("q"))
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE outbox RENAME TO away"))
    with pytest.raises(Exception, match="does not exist"):
        await subject.store.survey(shards("q"))
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE away RENAME TO outbox"))
    assert await carry(subject) == written

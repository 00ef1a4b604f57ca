"""What becomes of rows whose destination has answered when PostgreSQL does not write it, on a real server."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import Table as SqlTable
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from faststream_outbox import ConstantRetry, NoRetry, OutboxBroker
from faststream_outbox._engine.failure import FailurePolicy
from faststream_outbox._engine.relaying import account
from faststream_outbox._engine.relaying.breaker import Breaker
from faststream_outbox._engine.relaying.lane import Lane
from faststream_outbox._engine.relaying.remembered import Remembered
from faststream_outbox._engine.relaying.team import Team
from faststream_outbox._engine.runtime import Runtime
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox._values.outcome import Accepted, Verdict
from faststream_outbox._values.row import OutboxRow
from integration.servers.postgres import PostgresServer
from tests.engine.fakes import Lines, ScriptedDestination, poison, refuse

LANES = "lanes of these tests"
END_CONNECTIONS = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE application_name = :name"
REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'the owner says no';
    END $$
"""


@pytest.fixture
def database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database of its own: these tests change tables."""
    with postgres_server.database() as url:
        yield url


class Relay:
    """A forwarder's lanes in one process, and their destination."""

    def __init__(self, engine: AsyncEngine, outbox_table: SqlTable, dlq_table: SqlTable | None) -> None:
        self.log = Lines()
        self.destination = ScriptedDestination(self.log)
        self.store = PostgresStore(engine, outbox_table, dlq_table)
        self._runtime = Runtime(self.store, self.log, listen=False)
        self.team = Team(
            Breaker(self.destination.health, 2), remembered=Remembered("test", self.log, self.store.explain)
        )
        self.lanes: list[Lane] = []

    def start(self, lanes: int = 1, *, retry: Any = None, hold_key: bool = False, **options: Any) -> None:
        values: dict[str, Any] = {"batch_size": 100, "send_timeout": 30.0, "min_interval": 0.01, "max_interval": 0.05}
        failure = FailurePolicy(retry=retry or ConstantRetry(delay_seconds=0.0), hold_key=hold_key)
        for number in range(lanes):
            lane = self._runtime.lane(
                f"test-{number}", ["q", "q2"], self.destination, self.team, failure, **values | options
            )
            self.lanes.append(lane)
            lane.start()
        # It looks for lanes that rest.
        self._runtime._lookout.start()

    async def stop(self) -> None:
        for lane in self.lanes:
            await lane.stop()
        await self._runtime._lookout.stop()

    @property
    def copies(self) -> Counter[int]:
        return Counter(row_id for hand_over in self.destination.sent for row_id in hand_over)

    @property
    def accepted(self) -> Counter[int]:
        return Counter(self.destination.accepted)


@pytest.fixture
async def lane_engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url, connect_args={"server_settings": {"application_name": LANES}})
    yield engine
    await engine.dispose()


@pytest.fixture
async def make(
    lane_engine: AsyncEngine, outbox_table: SqlTable, dlq_table: SqlTable
) -> AsyncIterator[Callable[..., Relay]]:
    made: list[Relay] = []

    def make(*, engine: AsyncEngine = lane_engine, moves: bool = True) -> Relay:
        made.append(Relay(engine, outbox_table, dlq_table if moves else None))
        return made[-1]

    yield make
    for relay in made:
        await relay.stop()


class Publishing:
    def __init__(self, engine: AsyncEngine, outbox_table: SqlTable) -> None:
        self._engine = engine
        self._broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None)

    async def publish(self, *keys: str | None, queue: str = "q") -> list[int]:
        async with AsyncSession(self._engine) as session, session.begin():
            ids = [await self._broker.publish(b"x", queue=queue, key=key, session=session) for key in keys]
        return [row_id for row_id in ids if row_id is not None]

    async def execute(self, statement: str, **values: Any) -> Sequence[Any]:
        async with self._engine.begin() as connection:
            result = await connection.execute(text(statement), values)
            return result.all() if result.returns_rows else []

    async def left(self) -> dict[int, tuple[int, bool]]:
        """Rows by id: attempts, and whether each is a dead letter."""
        records = await self.execute("SELECT id, attempts_count, failed_at IS NOT NULL FROM outbox ORDER BY id")
        return {row_id: (attempts, is_dead) for row_id, attempts, is_dead in records}


@pytest.fixture
def publishing(engine: AsyncEngine, outbox_table: SqlTable) -> Publishing:
    return Publishing(engine, outbox_table)


async def until(condition: Callable[[], Any], *, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(0.01)


# Outcomes that are refused for good

ON_ROW = "CREATE TRIGGER refuse BEFORE {event} ON {table} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse()"
DELIVERED = ON_ROW.format(event="DELETE", table="outbox", condition="OLD.key = 'bad'")
RETRIED = ON_ROW.format(event="UPDATE", table="outbox", condition="NEW.key = 'bad' AND NEW.failed_at IS NULL")
PARKED = ON_ROW.format(event="UPDATE", table="outbox", condition="NEW.key = 'bad' AND NEW.failed_at IS NOT NULL")
MOVED = ON_ROW.format(event="INSERT", table="outbox_dlq", condition="NEW.key = 'bad'")


@pytest.mark.parametrize(
    ("refusals", "answer", "options"),
    [
        pytest.param([DELIVERED], lambda row: Accepted(), {}, id="delivered"),
        pytest.param([RETRIED], refuse, {"retry": ConstantRetry(delay_seconds=3600.0)}, id="retry"),
        pytest.param([MOVED, PARKED], refuse, {"retry": NoRetry()}, id="dead, exhausted"),
        pytest.param([MOVED, PARKED], poison, {}, id="dead, poison"),
        pytest.param([PARKED], poison, {"hold_key": True}, id="dead, holds its key"),
    ],
)
async def test_an_outcome_that_is_refused_harms_its_own_row_alone(
    make: Callable[..., Relay],
    publishing: Publishing,
    monkeypatch: pytest.MonkeyPatch,
    refusals: Sequence[str],
    answer: Callable[[OutboxRow], Verdict],
    options: dict[str, Any],
) -> None:
    monkeypatch.setattr(account, "RETRY_SECONDS", (0.02, 0.05))
    for statement in (REFUSE, *refusals):
        await publishing.execute(statement)
    relay = make()
    relay.destination.answer = lambda row: answer(row) if row.key == "bad" else Accepted()
    ids = await publishing.publish("a", "bad", "b", None, "a", "c")
    bad = ids[1]
    relay.start(lanes=2, **options)

    async def only_the_bad_one_is_left() -> bool:
        return await publishing.left() == {bad: (0, False)} and relay.team.remembered.set_aside == 1

    await until(only_the_bad_one_is_left)
    ids += await publishing.publish("a", "b", "c")
    await until(only_the_bad_one_is_left)
    assert relay.copies == dict.fromkeys(ids, 1)
    assert f"{bad} in 'q'" in "".join(line for line in relay.log.errors if "set aside" in line)
    await publishing.execute("DROP FUNCTION refuse() CASCADE")
    await until(lambda: relay.team.remembered.is_empty)
    left = await publishing.left()
    assert left.keys() <= {bad}
    assert relay.copies == dict.fromkeys(ids, 1), "it is written, and not sent again"
    assert left.get(bad, (1, False))[0] == 1


async def test_behind_a_retry_that_is_refused_its_key_waits_in_its_own_queue_alone(
    make: Callable[..., Relay], publishing: Publishing
) -> None:
    for statement in (REFUSE, RETRIED):
        await publishing.execute(statement)
    relay = make()
    [bad] = await publishing.publish("bad")
    relay.destination.answer = lambda row: refuse(row) if row.id == bad else Accepted()
    relay.start()
    await until(lambda: relay.team.remembered.set_aside == 1)
    [answer] = relay.team.remembered._answers.values()
    # Far beyond this test: it stays left out.
    answer.next_try += 3600.0
    # As after many hand-overs of few rows: all shards at once.
    relay.lanes[0]._rounds.breadth = 32
    [behind] = await publishing.publish("bad")
    [elsewhere] = await publishing.publish("bad", queue="q2")
    await until(lambda: elsewhere in relay.destination.accepted)
    [beside] = await publishing.publish("good")

    async def is_delivered() -> bool:
        return beside not in await publishing.left()

    await until(is_delivered)
    assert relay.copies == dict.fromkeys([bad, elsewhere, beside], 1)
    assert list(await publishing.left()) == [bad, behind]


async def test_without_the_dead_letter_table_nothing_repeats_and_letters_are_parked(
    make: Callable[..., Relay], publishing: Publishing
) -> None:
    await publishing.execute("DROP TABLE outbox_dlq")
    relay = make()
    relay.destination.answer = lambda row: poison(row) if row.key == "bad" else Accepted()
    ids = await publishing.publish(*["a", "bad", "b"] * 10)
    relay.start(lanes=2)

    async def all_are_settled() -> bool:
        left = await publishing.left()
        return len(left) == 10 and all(is_dead for _, is_dead in left.values())

    await until(all_are_settled)
    assert relay.copies == dict.fromkeys(ids, 1)


# Connections and locks


async def test_connections_that_are_lost_again_and_again_make_no_copies(
    make: Callable[..., Relay], publishing: Publishing
) -> None:
    relay = make()
    ids = await publishing.publish(*(f"key-{number % 20}" for number in range(200)))
    cut = 0

    async def cut_behind_the_answer() -> None:
        nonlocal cut
        [(count,)] = await publishing.execute(END_CONNECTIONS, name=LANES)
        cut += count

    relay.destination.before_answer = cut_behind_the_answer
    relay.start(lanes=2, batch_size=10)
    # At any other moment too: when rows are taken, when outcomes are written, in the commit.
    for _ in range(100):
        await cut_behind_the_answer()
        await asyncio.sleep(0.03)

    async def all_are_gone() -> bool:
        return not await publishing.left()

    await until(all_are_gone)
    assert cut > 20
    # Of an outage the first error is logged, whichever that is. So here is an outage that begins behind an answer.
    await until(lambda: not relay.lanes[0].health.is_down)
    ids += await publishing.publish("again")
    await until(all_are_gone)
    assert relay.accepted == dict.fromkeys(ids, 1)
    assert any("the server's log says which" in line for line in relay.log.errors)


async def test_a_lock_on_the_table_between_taking_and_settling_is_waited_for(
    make: Callable[..., Relay], publishing: Publishing, engine: AsyncEngine
) -> None:
    relay = make()
    ids = await publishing.publish("a", "b", "c", "d")
    building: list[asyncio.Task[None]] = []

    async def build_an_index() -> None:
        async with engine.connect() as connection:
            # As CREATE INDEX takes it, which may build for long.
            await connection.execute(text("LOCK TABLE outbox IN SHARE MODE"))
            is_locked.set()
            await asyncio.sleep(0.5)
            await connection.rollback()

    is_locked = asyncio.Event()

    async def lock() -> None:
        if not building:
            building.append(asyncio.create_task(build_an_index()))
        await is_locked.wait()

    relay.destination.before_answer = lock
    relay.start()
    # Of several shards, since that is when a hand-over sets a limit for its looks.
    relay.lanes[0]._rounds.breadth = 16

    async def all_are_gone() -> bool:
        return not await publishing.left()

    await until(all_are_gone)
    await asyncio.gather(*building)
    assert relay.copies == dict.fromkeys(ids, 1)
    assert len(relay.destination.sent) == 1
    assert relay.log.errors == []


async def test_a_transaction_timeout_of_the_role_does_not_end_hand_overs(
    make: Callable[..., Relay], publishing: Publishing, database_url: str
) -> None:
    [(version,)] = await publishing.execute("SELECT current_setting('server_version_num')::int")
    settings = {"transaction_timeout": "300ms"} if version >= 170_000 else {}
    engine = create_async_engine(database_url, connect_args={"server_settings": settings})
    relay = make(engine=engine)
    ids = await publishing.publish("a", "b", "c")
    relay.destination.before_answer = lambda: asyncio.sleep(0.8)
    relay.start(batch_size=1)

    async def all_are_gone() -> bool:
        return not await publishing.left()

    await until(all_are_gone)
    await relay.stop()
    await engine.dispose()
    assert relay.copies == dict.fromkeys(ids, 1)
    assert relay.log.errors == []


# While nothing is sent


async def lose_the_answers(relay: Relay, publishing: Publishing, then: Callable[[], object]) -> list[int]:
    """Let the database lose a hand-over behind the answers to its rows, and do something at that moment."""

    async def cut() -> None:
        relay.destination.before_answer = None
        await publishing.execute(END_CONNECTIONS, name=LANES)
        then()

    relay.destination.before_answer = cut
    return await publishing.publish("a", "a", "a", "a")


async def test_what_was_answered_is_written_during_a_pause(make: Callable[..., Relay], publishing: Publishing) -> None:
    relay = make()
    ids = await lose_the_answers(relay, publishing, relay.team.pause.begin)
    relay.start()
    await until(lambda: relay.team.pause.is_on)
    [late] = await publishing.publish("a")

    async def the_late_one_is_left() -> bool:
        return [*await publishing.left()] == [late]

    await until(the_late_one_is_left)
    assert relay.copies == dict.fromkeys(ids, 1)
    assert relay.team.tally.sent == len(ids)
    assert relay.team.remembered.is_empty
    relay.team.pause.end()
    await until(lambda: late in relay.destination.accepted)


async def test_what_was_answered_is_written_while_the_destination_is_down(
    make: Callable[..., Relay], publishing: Publishing
) -> None:
    relay = make()

    def go_down() -> None:
        relay.destination.script.failing["connect"] = ConnectionError("no destination")

    ids = await lose_the_answers(relay, publishing, go_down)
    relay.start()

    async def all_are_gone() -> bool:
        return not await publishing.left()

    await until(all_are_gone)
    assert relay.copies == dict.fromkeys(ids, 1)


async def test_what_was_answered_is_written_before_a_stop(make: Callable[..., Relay], publishing: Publishing) -> None:
    relay = make()

    def stop() -> None:
        relay.lanes[0].begin_stop()

    ids = await lose_the_answers(relay, publishing, stop)
    relay.start(batch_size=1)
    await until(lambda: relay.lanes[0].is_stopping)
    await relay.lanes[0].stop(20.0)
    assert relay.copies == {ids[0]: 1}
    assert [*await publishing.left()] == ids[1:]


async def test_what_was_refused_is_tried_once_more_at_a_stop(
    make: Callable[..., Relay], publishing: Publishing
) -> None:
    for statement in (REFUSE, DELIVERED):
        await publishing.execute(statement)
    relay = make()
    await publishing.publish(*["bad"] * 3)
    relay.start(batch_size=2)
    await until(lambda: relay.team.remembered.set_aside == 3)
    for answer in relay.team.remembered._answers.values():
        # Far beyond this test: it stays left out.
        answer.next_try += 3600.0
    [late] = await publishing.publish("late")

    async def the_late_one_is_gone() -> bool:
        return late not in await publishing.left()

    await until(the_late_one_is_gone)
    assert len(await publishing.left()) == 3
    await publishing.execute("DROP FUNCTION refuse() CASCADE")
    await relay.lanes[0].stop(20.0)
    assert await publishing.left() == {}
    assert relay.copies.most_common(1)[0][1] == 1


async def test_a_stop_tries_what_is_still_refused_just_once(make: Callable[..., Relay], publishing: Publishing) -> None:
    for statement in (REFUSE, DELIVERED):
        await publishing.execute(statement)
    relay = make()
    ids = await publishing.publish("bad", "b")
    relay.start()
    await until(lambda: relay.team.remembered.set_aside == 1)
    # No time-out: it ends by itself.
    async with asyncio.timeout(20):
        await relay.lanes[0].stop(None)
    assert [*await publishing.left()] == ids[:1]
    assert relay.copies == dict.fromkeys(ids, 1)

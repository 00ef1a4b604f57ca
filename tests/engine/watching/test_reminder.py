"""What lasts is said again, with what waits for it; the database is asked rarely, and only if it is there."""

from collections.abc import AsyncIterator

import pytest

from faststream_outbox._engine import health as health_module
from faststream_outbox._engine.health import Health
from faststream_outbox._engine.runtime import Runtime
from faststream_outbox._engine.watching import reminder as reminder_module
from faststream_outbox._engine.watching.reminder import MOST_COUNTED, Reminder, Watched, describe_lag
from faststream_outbox._store.protocol import Lag
from tests.engine.fakes import Clock, Lines, ScriptedStore, Trouble, until


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(health_module, "time", clock)
    monkeypatch.setattr(reminder_module, "TICK_SECONDS", 0.001)
    return clock


@pytest.fixture
def database(log: Lines) -> Health:
    return Health("database", log)


@pytest.fixture
def kafka(log: Lines) -> Health:
    return Health("kafka", log)


@pytest.fixture
async def reminding(database: Health) -> AsyncIterator[Reminder]:
    reminding = Reminder(database)
    yield reminding
    await reminding.stop()


class Counting:
    """A question that is counted."""

    def __init__(self, answer: Lag | Exception) -> None:
        self.answer = answer
        self.asked = 0

    async def __call__(self) -> Lag:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_a_reminder_says_how_much_waits_and_the_database_is_asked_for_it_alone(
    reminding: Reminder, kafka: Health, log: Lines, clock: Clock
) -> None:
    lag = Counting(Lag(204, 185.0))
    reminding.watch(Watched(health=kafka, lag=lag))
    kafka.failed(Trouble("gone"))
    for _ in range(3):
        await reminding.run_once()
    assert log.warnings == []
    for number, seconds in enumerate((60.0, 120.0, 240.0), start=1):
        clock.now += seconds
        for _ in range(3):
            await reminding.run_once()
        assert lag.asked == len(log.warnings) == number
    assert log.warnings[-1] == "kafka: still so after 7 min: Trouble: gone; 204 rows wait, the first for 3 min"


async def test_while_the_database_is_down_it_is_not_asked(
    reminding: Reminder, database: Health, kafka: Health, log: Lines, clock: Clock
) -> None:
    lag = Counting(Lag(1, 1.0))
    reminding.watch(Watched(health=kafka, lag=lag))
    kafka.failed(Trouble("gone"))
    database.failed(Trouble("gone, too"))
    clock.now += 60.0
    await reminding.run_once()
    assert log.warnings == ["kafka: still so after 60 s: Trouble: gone"]
    assert lag.asked == 0


async def test_a_question_that_fails_costs_the_answer_alone(
    reminding: Reminder, database: Health, kafka: Health, log: Lines, clock: Clock
) -> None:
    reminding.watch(Watched(health=kafka, lag=Counting(TimeoutError())))
    kafka.failed(Trouble("gone"))
    clock.now += 60.0
    await reminding.run_once()
    assert log.warnings == ["kafka: still so after 60 s: Trouble: gone"]
    assert not database.is_down


async def test_what_nobody_tries_or_is_forgotten_is_no_news(
    reminding: Reminder, kafka: Health, log: Lines, clock: Clock
) -> None:
    is_paused = True
    watched = Watched(health=kafka, is_wanted=lambda: not is_paused)
    reminding.watch(watched)
    kafka.failed(Trouble("gone"))
    clock.now += 60.0
    await reminding.run_once()
    assert log.warnings == []
    is_paused = False
    await reminding.run_once()
    assert len(log.warnings) == 1
    reminding.forget(watched)
    reminding.forget(watched)
    clock.now += 3600.0
    await reminding.run_once()
    assert len(log.warnings) == 1


@pytest.mark.parametrize(
    ("lag", "words"),
    [
        (Lag(0, 0.0), "no row waits for it"),
        (Lag(1, 61.0), "1 row waits for 61 s"),
        (Lag(2, 600.0), "2 rows wait, the first for 10 min"),
        (Lag(MOST_COUNTED, 7200.0), f"at least {MOST_COUNTED:,} rows wait, the first for 2 h"),
    ],
)
def test_a_lag_in_words(lag: Lag, words: str) -> None:
    assert describe_lag(lag) == words


async def test_a_runtime_reminds_of_its_database_once_and_not_of_the_line_too(
    runtime: Runtime, store: ScriptedStore, log: Lines, clock: Clock
) -> None:
    store.script.failing["*"] = Trouble("no database")
    runtime.health.failed(Trouble("no database"))
    runtime.start()
    await until(lambda: len(log.errors) == 2)
    clock.now += 60.0
    await until(lambda: log.warnings)
    clock.now += 1.0
    await until(lambda: store.script.calls["listen"] >= 3)
    assert log.warnings == ["outbox database: still so after 60 s: Trouble: no database"]
    runtime.health.recovered()
    await until(lambda: len(log.warnings) == 2)
    assert log.warnings[1] == "outbox database, LISTEN connection: still so after 61 s: Trouble: no database"


async def test_a_runtime_counts_no_more_rows_than_a_line_needs(
    runtime: Runtime, store: ScriptedStore, log: Lines, kafka: Health, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    lag = store.lag

    async def counted(shards: object, *, at_most: int | None = None) -> Lag:
        asked.append(at_most)
        return await lag(shards, at_most=at_most)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "lag", counted)
    store.publish()
    watched = runtime.remind_of(kafka, ["orders"], is_wanted=lambda: True)
    runtime.start()
    kafka.failed(Trouble("gone"))
    clock.now += 60.0
    await until(lambda: log.warnings)
    assert log.warnings[0].startswith("kafka: still so after 60 s: Trouble: gone; 1 row waits for ")
    assert asked == [MOST_COUNTED]
    runtime.forget(watched)
    clock.now += 3600.0
    await runtime.stop(0.0)
    assert len(log.warnings) == 1

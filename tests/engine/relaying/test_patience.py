"""A destination that keeps its forwarder waiting is told of once, long before it is given up."""

import asyncio
from collections.abc import Callable

import pytest

from faststream_outbox._engine.health import QUIET_SECONDS, Health
from faststream_outbox._engine.relaying import patience as patience_module
from faststream_outbox._engine.relaying.patience import PATIENCE_SECONDS, Patience
from tests.engine.fakes import Clock, Lines, Trouble

LINE = f"kafka: no answer for {PATIENCE_SECONDS:g} s now; it is given up after 35 s"


class Timers(asyncio.TimerHandle):
    """A timer that only goes off by hand."""

    def __init__(self, say: Callable[[], None]) -> None:
        self.say = say
        self.was_cancelled = False

    def cancel(self) -> None:
        self.was_cancelled = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(patience_module, "time", clock)
    return clock


@pytest.fixture
def health(log: Lines) -> Health:
    return Health("kafka", log)


@pytest.fixture
def patience(health: Health, log: Lines) -> Patience:
    return Patience(health, log, 35.0)


@pytest.fixture
async def timers(monkeypatch: pytest.MonkeyPatch) -> list[Timers]:
    made: list[Timers] = []

    def call_later(delay: float, say: Callable[..., None], *args: object) -> Timers:
        assert delay == PATIENCE_SECONDS
        made.append(Timers(lambda: say(*args)))
        return made[-1]

    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", call_later)
    return made


async def test_a_quick_answer_is_not_worth_a_word(patience: Patience, log: Lines, timers: list[Timers]) -> None:
    with patience.waiting("no answer"):
        pass
    assert timers[0].was_cancelled
    assert log.all == []


async def test_a_slow_one_is_told_of_once_until_there_was_a_quick_one(
    patience: Patience, log: Lines, timers: list[Timers], clock: Clock
) -> None:
    for _ in range(5):
        with patience.waiting("no answer"):
            timers[-1].say()
            clock.now += QUIET_SECONDS
    assert log.warnings == [LINE]
    with patience.waiting("no answer"):
        pass
    with patience.waiting("no answer"):
        timers[-1].say()
        clock.now += 10.0
    assert log.warnings == [LINE, LINE]


async def test_a_quick_lane_beside_a_slow_one_makes_no_storm(
    patience: Patience, log: Lines, timers: list[Timers], clock: Clock
) -> None:
    began = clock.now
    while clock.now < began + 10 * QUIET_SECONDS:
        with patience.waiting("no answer"):
            timers[-1].say()
            clock.now += 6.0
        with patience.waiting("no answer"):
            pass
    assert len(log.warnings) == 10


async def test_that_it_is_down_is_known_already(
    patience: Patience, health: Health, log: Lines, timers: list[Timers]
) -> None:
    health.failed(Trouble("gone"))
    with patience.waiting("no answer"):
        timers[-1].say()
    assert log.warnings == []


async def test_one_that_is_cut_off_is_waited_for_no_longer(patience: Patience, timers: list[Timers]) -> None:
    with pytest.raises(Trouble), patience.waiting("no answer"):
        raise Trouble
    assert timers[0].was_cancelled


async def test_the_timer_is_the_loops_own(patience: Patience, log: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience_module, "PATIENCE_SECONDS", 0.001)
    with patience.waiting("no answer on 3 rows"):
        async with asyncio.timeout(5):
            while not log.warnings:
                await asyncio.sleep(0.001)
    assert log.warnings == ["kafka: no answer on 3 rows for 0.001 s now; it is given up after 35 s"]

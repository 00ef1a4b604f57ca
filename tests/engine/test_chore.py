"""Work at intervals leaves the database alone for ten times as long as it took."""

import asyncio

import pytest

from faststream_outbox._engine import chore
from faststream_outbox._engine.chore import Chore
from faststream_outbox._engine.health import Health
from tests.engine.fakes import Clock, Lines, Trouble


class Walk(Chore):
    """Takes as long as it is told."""

    def __init__(self, log: Lines, clock: Clock) -> None:
        super().__init__("walk", Health("walks", log), interval=5.0, longest=300.0, limit=0.01)
        self.clock = clock
        self.seconds = 0.0
        self.error: Exception | None = None
        self.hangs = False
        self.rests: list[float] = []
        self.walks = 0

    async def sleep(self, seconds: float) -> None:
        self.rests.append(seconds)

    async def work(self) -> None:
        self.walks += 1
        self.clock.now += self.seconds
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def walk(log: Lines, monkeypatch: pytest.MonkeyPatch) -> Walk:
    clock = Clock()
    monkeypatch.setattr(chore, "time", clock)
    return Walk(log, clock)


@pytest.mark.parametrize(("seconds", "rest"), [(0.01, 5.0), (0.5, 5.0), (2.0, 20.0), (29.0, 290.0), (3600.0, 300.0)])
async def test_the_next_round_waits_for_ten_times_as_long(walk: Walk, seconds: float, rest: float) -> None:
    walk.seconds = seconds
    await walk.run_once()
    await walk.run_once()
    assert walk.rests == [5.0, rest]


async def test_a_round_that_is_given_up_took_long(walk: Walk) -> None:
    """Else a table that cannot be walked through in time would be walked through all the time."""
    walk.seconds, walk.hangs = 20.0, True
    with pytest.raises(TimeoutError):
        await walk.run_once()
    await_rest = walk.rests[0]
    with pytest.raises(TimeoutError):
        await walk.run_once()
    assert (await_rest, walk.rests[1]) == (5.0, 200.0)


@pytest.mark.parametrize("error", [Trouble("no"), TimeoutError("of a connection")])
async def test_a_failure_says_nothing_of_how_long_the_work_takes(walk: Walk, error: Exception) -> None:
    walk.seconds, walk.error = 20.0, error
    with pytest.raises(type(error)):
        await walk.run_once()
    walk.seconds, walk.error = 0.0, None
    await walk.run_once()
    await walk.run_once()
    assert walk.rests == [5.0, 5.0, 5.0]


async def test_nothing_is_done_after_a_stop(walk: Walk) -> None:
    walk.begin_stop()
    await walk.run_once()
    assert walk.walks == 0

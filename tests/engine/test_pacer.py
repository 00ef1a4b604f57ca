"""When the next look comes: what the lookout's answers make of a rest, without sleeping for it."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from faststream_outbox._engine.lookout import Sleeper
from faststream_outbox._engine.pacer import AFTERLOOK_SECONDS, Pacer
from faststream_outbox._engine.wakeups import Wakeup
from faststream_outbox._store.protocol import Outlook
from tests.engine.fakes import until

NOTHING = Outlook()
READY = Outlook(is_ready=True)


class Attentive:
    """A lookout that says what a test tells it to say."""

    def __init__(self) -> None:
        self.sleepers: list[Sleeper] = []

    @contextmanager
    def beside(self, sleeper: Sleeper) -> Iterator[None]:
        self.sleepers.append(sleeper)
        yield
        self.sleepers.remove(sleeper)


class Resting:
    """A rest of a pacer, and for how long each wait in it is."""

    def __init__(self, *, shortest: float = 1.0, longest: float = 10.0) -> None:
        self.bell = Wakeup()
        self.lookout = Attentive()
        self.pacer = Pacer(self.bell, self.lookout, lambda: ["orders"], shortest=shortest, longest=longest)  # type: ignore[arg-type]
        self.task: asyncio.Task[None] | None = None

    async def begin(self, *, found: bool = False, **options: float) -> None:
        await self.end()
        self.bell.clear()
        self.task = asyncio.create_task(self.pacer.rest(found=found, **options))  # type: ignore[arg-type]
        await until(lambda: self.lookout.sleepers or self.bell.is_rung or self.is_over)

    async def end(self) -> None:
        if self.task is not None:
            self.bell.ring()
            await self.task

    @property
    def is_over(self) -> bool:
        return self.task is not None and self.task.done()

    def hear(self, outlook: Outlook = NOTHING) -> float | None:
        """Say what there is; returns the seconds until the next look for it, rounded, or None if the bell rings."""
        self.pacer.heard(outlook)
        return None if self.bell.is_rung else round(self.pacer.look_at - time.monotonic(), 1)

    @property
    def timer(self) -> float | None:
        """The seconds until the bell rings by itself, rounded."""
        timer = self.pacer._timer
        return None if timer is None else round(timer.when() - asyncio.get_running_loop().time(), 2)


@pytest.fixture
async def resting() -> AsyncIterator[Resting]:
    resting = Resting()
    yield resting
    await resting.end()


async def test_something_that_does_not_ring_is_not_slept_through(resting: Resting) -> None:
    async with asyncio.timeout(2.5):
        await resting.pacer.rest(found=False, at_most=0.01)
    await resting.begin()
    assert [resting.hear() for _ in range(2)] == [1.0, 2.0]


async def test_without_rows_the_interval_doubles_up_to_the_longest(resting: Resting) -> None:
    await resting.begin()
    assert [resting.hear() for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert not resting.is_over


async def test_after_rows_a_look_follows_soon_and_the_interval_is_short_again(resting: Resting) -> None:
    await resting.begin()
    for _ in range(4):
        resting.hear()
    await resting.begin(found=True)
    assert 0 < resting.pacer.look_at - time.monotonic() <= AFTERLOOK_SECONDS
    assert resting.hear() == 1.0


async def test_after_rows_what_is_ready_ends_the_rest_at_once(resting: Resting) -> None:
    for outlook in (READY, Outlook(seconds=-1.0)):
        await resting.begin(found=True)
        assert resting.hear(outlook) is None


async def test_after_a_look_in_vain_what_is_ready_counts_when_an_interval_is_over(resting: Resting) -> None:
    """Another process may have it in hand."""
    await resting.begin()
    assert resting.hear(READY) == 1.0
    assert resting.hear(NOTHING) == 2.0
    assert resting.hear(READY) is None


async def test_while_bells_ring_nobody_looks(resting: Resting) -> None:
    resting.bell.ring()
    async with asyncio.timeout(2.5):
        for _ in range(3):
            await resting.pacer.rest(found=True)
    assert not resting.lookout.sleepers
    assert resting.bell.is_rung, "the next look clears it"


async def test_an_interval_shorter_than_the_afterlook_is_kept() -> None:
    resting = Resting(shortest=0.01, longest=0.02)
    await resting.begin(found=True)
    assert resting.pacer.look_at - time.monotonic() <= 0.01
    await resting.end()


async def test_a_row_that_will_be_due_ends_the_rest(resting: Resting) -> None:
    await resting.begin()
    resting.hear(Outlook(seconds=0.25))
    assert resting.timer == pytest.approx(0.25, abs=0.02)
    resting.hear(Outlook(seconds=0.01))
    async with asyncio.timeout(2.5):
        await resting.bell.wait(None)
    await resting.begin()
    assert resting.hear(Outlook(seconds=7.0)) == 4.0
    assert resting.timer is None, "it is seen again before"


async def test_a_time_that_has_changed_counts_as_it_is_now(resting: Resting) -> None:
    await resting.begin()
    resting.hear(Outlook(seconds=0.02))
    resting.hear(NOTHING)
    await asyncio.sleep(0.05)
    assert not resting.is_over


async def test_an_overdue_row_that_no_look_gets_is_no_reason_to_spin(resting: Resting) -> None:
    waits = []
    for _ in range(12):
        await resting.begin()
        resting.hear(Outlook(seconds=-3.0))
        waits.append(resting.timer)
    assert waits[:4] == pytest.approx([0.05, 0.1, 0.2, 0.4], abs=0.02)
    assert waits[-1] is None, "the next look counts it"
    assert resting.pacer._overdue == 10.0


async def test_an_overdue_row_counts_anew_once_rows_were_found(resting: Resting) -> None:
    for _ in range(5):
        await resting.begin()
        resting.hear(Outlook(seconds=0.0))
    await resting.begin(found=True)
    await resting.begin()
    resting.hear(Outlook(seconds=0.0))
    assert resting.timer == pytest.approx(AFTERLOOK_SECONDS, abs=0.02)


async def test_a_loop_that_nobody_can_look_for_looks_itself(resting: Resting) -> None:
    await resting.begin()
    resting.pacer.unheard()
    async with asyncio.timeout(2.5):
        await resting.begin()
    assert resting.task is not None


async def test_another_reason_to_look_counts_when_an_interval_is_over(resting: Resting) -> None:
    await resting.begin(is_wanted=lambda: True)  # type: ignore[arg-type]
    assert resting.hear() == 1.0
    assert resting.hear() is None


async def test_nothing_rings_after_a_rest(resting: Resting) -> None:
    await resting.begin()
    resting.hear(Outlook(seconds=0.02))
    await resting.end()
    resting.bell.clear()
    await asyncio.sleep(0.05)
    assert not resting.bell.is_rung

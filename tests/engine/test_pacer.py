"""When the next look comes: what is asked of the bell, without sleeping for it."""

import asyncio

import pytest

from faststream_outbox._engine import pacer as pacer_module
from faststream_outbox._engine.pacer import AFTERLOOK_SECONDS, Pacer
from faststream_outbox._engine.wakeups import Wakeup
from tests.engine.fakes import Trouble, never


class Bell(Wakeup):
    """Notes for how long it is waited for, and does not make anyone wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    async def wait(self, seconds: float | None) -> None:
        self.waits.append(seconds)


class Due:
    """The store's answer to how long until the first waiting row is due."""

    def __init__(self) -> None:
        self.seconds: float | None = None
        self.asked = 0

    async def __call__(self) -> float | None:
        self.asked += 1
        return self.seconds


def longer(bell: Bell) -> list[float | None]:
    """What was waited for behind the wait with which each rest begins."""
    return [seconds for seconds in bell.waits if seconds != AFTERLOOK_SECONDS]


@pytest.fixture
async def bell() -> Bell:
    return Bell()


@pytest.fixture
def due() -> Due:
    return Due()


@pytest.fixture
async def pacer(bell: Bell, due: Due) -> Pacer:
    return Pacer(bell, due, shortest=1.0, longest=10.0)


async def test_something_that_does_not_ring_is_not_slept_through(pacer: Pacer, bell: Bell) -> None:
    for _ in range(3):
        await pacer.rest(found=False, at_most=0.3)
    await pacer.rest(found=False)
    assert longer(bell) == [0.3, 0.3, 0.3, 8.0], "looks in vain are counted all the same"


async def test_without_rows_the_interval_doubles_up_to_the_longest(pacer: Pacer, bell: Bell) -> None:
    for _ in range(6):
        await pacer.rest(found=False)
    assert longer(bell) == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


async def test_after_rows_a_look_follows_soon_and_the_interval_is_short_again(pacer: Pacer, bell: Bell) -> None:
    for _ in range(4):
        await pacer.rest(found=False)
    del bell.waits[:]
    await pacer.rest(found=True)
    await pacer.rest(found=False)
    assert bell.waits == [AFTERLOOK_SECONDS, AFTERLOOK_SECONDS, 1.0]


async def test_after_rows_the_store_is_not_asked_for_more(pacer: Pacer, due: Due) -> None:
    await pacer.rest(found=True)
    assert due.asked == 0


async def test_while_bells_ring_the_store_is_not_asked(due: Due) -> None:
    bell = Wakeup()
    pacer = Pacer(bell, due, shortest=1.0, longest=1.0)
    for _ in range(3):
        bell.ring()
        await pacer.rest(found=False)
    assert due.asked == 0


async def test_an_interval_shorter_than_the_afterlook_is_kept(bell: Bell, due: Due) -> None:
    await Pacer(bell, due, shortest=0.01, longest=0.02).rest(found=True)
    assert bell.waits == [0.01]


async def test_a_row_that_will_be_due_ends_the_rest(pacer: Pacer, bell: Bell, due: Due) -> None:
    due.seconds = 0.25
    await pacer.rest(found=False)
    due.seconds = 7.0
    await pacer.rest(found=False)
    assert longer(bell) == [0.25, 2.0]


async def test_an_overdue_row_that_no_look_gets_is_no_reason_to_spin(pacer: Pacer, bell: Bell, due: Due) -> None:
    due.seconds = -3.0
    for _ in range(12):
        await pacer.rest(found=False)
    waits = [wait for wait in bell.waits[1::2] if wait is not None]
    assert waits[:4] == [0.05, 0.1, 0.2, 0.4]
    assert waits[-1] == 10.0
    assert sum(waits) > 30


async def test_an_overdue_row_counts_anew_once_rows_were_found(pacer: Pacer, bell: Bell, due: Due) -> None:
    due.seconds = 0.0
    for _ in range(5):
        await pacer.rest(found=False)
    await pacer.rest(found=True)
    await pacer.rest(found=False)
    assert bell.waits[-1] == AFTERLOOK_SECONDS


async def test_what_rang_during_the_look_ends_the_rest(due: Due) -> None:
    bell = Wakeup()
    pacer = Pacer(bell, due, shortest=60.0, longest=60.0)
    bell.ring()
    async with asyncio.timeout(2.5):
        await pacer.rest(found=False)
    assert bell.is_rung, "the next look clears it"


async def test_what_rings_while_the_store_is_asked_ends_the_rest() -> None:
    bell = Wakeup()

    async def ask() -> None:
        bell.ring()

    async with asyncio.timeout(2.5):
        await Pacer(bell, ask, shortest=60.0, longest=60.0).rest(found=False)


async def test_a_wake_up_counts_until_a_rest_was_made(bell: Bell, due: Due) -> None:
    async def fail() -> None:
        bell.ring()
        raise Trouble

    with pytest.raises(Trouble):
        await Pacer(bell, fail, shortest=1.0, longest=1.0).rest(found=False)
    assert bell.is_rung


async def test_a_store_that_does_not_answer_is_given_up(bell: Bell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacer_module, "DATABASE_SECONDS", 0.01)
    with pytest.raises(TimeoutError):
        await Pacer(bell, never, shortest=1.0, longest=1.0).rest(found=False)

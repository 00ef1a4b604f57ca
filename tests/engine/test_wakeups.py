"""Bells: none is lost, none rings for another queue, none is kept for ever."""

import asyncio
import gc

import pytest

from faststream_outbox._engine import wakeups as wakeups_module
from faststream_outbox._engine.wakeups import TeamBell, Wakeup, Wakeups
from tests.engine.fakes import until


async def test_a_ring_before_the_wait_ends_the_wait() -> None:
    wakeup = Wakeup()
    wakeup.ring()
    async with asyncio.timeout(2.5):
        await wakeup.wait(None)


async def test_a_ring_during_the_wait_ends_the_wait() -> None:
    wakeup = Wakeup()
    waiting = asyncio.create_task(wakeup.wait(None))
    await asyncio.sleep(0)
    wakeup.ring()
    async with asyncio.timeout(2.5):
        await waiting


async def test_it_stays_rung_until_it_is_cleared() -> None:
    wakeup = Wakeup()
    wakeup.ring()
    await wakeup.wait(None)
    assert wakeup.is_rung
    wakeup.clear()
    assert not wakeup.is_rung


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.001])
async def test_a_wait_ends_by_itself(seconds: float) -> None:
    async with asyncio.timeout(2.5):
        await Wakeup().wait(seconds)


async def test_a_cancellation_is_not_taken_for_the_end_of_the_wait() -> None:
    waiting = asyncio.create_task(Wakeup().wait(60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_only_sleepers_of_the_queue_are_woken() -> None:
    wakeups = Wakeups()
    orders, mails, both = (
        wakeups.register(["orders"]),
        wakeups.register(["mails"]),
        wakeups.register(["orders", "mails"]),
    )
    wakeups.wake("orders")
    wakeups.wake("unknown")
    assert (orders.is_rung, mails.is_rung, both.is_rung) == (True, False, True)


async def test_all_are_woken() -> None:
    wakeups = Wakeups()
    bells = [wakeups.register([queue]) for queue in ("a", "a", "b")]
    wakeups.wake_all()
    assert all(bell.is_rung for bell in bells)


async def test_sleepers_that_are_gone_are_forgotten() -> None:
    wakeups = Wakeups()
    team_bell = TeamBell()
    kept = wakeups.register(["orders"], team_bell)
    for _ in range(100):
        wakeups.register(["orders"])
        wakeups.register(["orders"], team_bell)
    gc.collect()
    assert list(wakeups._team_bells["orders"]) == [team_bell]
    assert list(team_bell._members) == [kept]


@pytest.fixture
async def team_bell() -> TeamBell:
    return TeamBell()


async def asleep(team_bell: TeamBell, count: int) -> list[tuple[Wakeup, asyncio.Task[None]]]:
    bells = [team_bell.join() for _ in range(count)]
    waiting = [(bell, asyncio.create_task(bell.wait(60))) for bell in bells]
    await until(lambda: all(bell.is_asleep for bell in bells))
    return waiting


async def test_one_ring_wakes_one_of_a_crew_that_comes_back_soon(team_bell: TeamBell) -> None:
    sleepers = await asleep(team_bell, 3)
    team_bell.ring()
    [woken] = [bell for bell, _ in sleepers if bell.is_rung]
    woken.clear()
    back = asyncio.create_task(woken.wait(60))
    await until(lambda: not team_bell._left_alone)
    assert not any(bell.is_rung for bell, _ in sleepers)
    team_bell.ring_all()
    await asyncio.gather(back, *(task for _, task in sleepers))


async def test_the_others_are_woken_when_the_one_does_not_come_back(team_bell: TeamBell) -> None:
    sleepers = await asleep(team_bell, 3)
    team_bell.ring()
    async with asyncio.timeout(2.5):
        await asyncio.gather(*(task for _, task in sleepers))


async def test_what_rings_while_one_is_at_work_is_left_to_it(
    team_bell: TeamBell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups_module, "ALONE_SECONDS", 0.2)
    sleepers = await asleep(team_bell, 3)
    team_bell.ring()
    [woken] = [bell for bell, _ in sleepers if bell.is_rung]
    woken.clear()
    team_bell.ring()
    assert [bell for bell, _ in sleepers if bell.is_rung] == [woken]
    # It does not come back: the others help.
    async with asyncio.timeout(5):
        await asyncio.gather(*(task for _, task in sleepers))


async def test_one_that_was_back_meanwhile_is_left_alone_again(
    team_bell: TeamBell, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The test says when the time is over: a machine that is slow for a moment must not.
    monkeypatch.setattr(wakeups_module, "ALONE_SECONDS", 3600.0)
    sleepers = await asleep(team_bell, 3)
    team_bell.ring()
    [woken] = [bell for bell, _ in sleepers if bell.is_rung]
    for _ in range(4):
        before = team_bell._help_is_due
        assert before is not None
        woken.clear()
        back = asyncio.create_task(woken.wait(60))
        await until(lambda: woken.is_asleep)
        team_bell.ring()
        assert woken.is_rung
        await back
        assert before.cancelled()
        assert team_bell._help_is_due is not None
        assert team_bell._help_is_due.when() > before.when()
    # It is at work since then, and not for long yet.
    assert [bell for bell, _ in sleepers if bell.is_rung] == [woken]
    team_bell._help()
    async with asyncio.timeout(5):
        await asyncio.gather(*(task for _, task in sleepers))


async def test_after_a_look_in_vain_those_at_work_look_once_more(team_bell: TeamBell) -> None:
    [(sleeper, sleeping)] = await asleep(team_bell, 1)
    idle, at_work = team_bell.join(), team_bell.join()
    idle.ring()
    idle.clear()
    idle.pass_on()
    assert (idle.is_rung, at_work.is_rung, sleeper.is_rung) == (False, True, False)
    team_bell.ring_all()
    await sleeping


async def test_a_ring_is_passed_on_once_and_goes_no_further(team_bell: TeamBell) -> None:
    first, second = team_bell.join(), team_bell.join()
    first.pass_on()
    assert not second.is_rung, "nothing has rung"
    first.ring()
    # Two looks, of which only the second one is in vain.
    first.clear()
    first.clear()
    first.pass_on()
    assert second.is_rung
    second.clear()
    second.pass_on()
    assert not first.is_rung
    first.pass_on()
    assert not second.is_rung
    # What has rung beside it is passed on.
    first.look_once_more()
    first.ring()
    first.clear()
    first.pass_on()
    assert second.is_rung


async def test_where_nobody_sleeps_each_looks_once_more(team_bell: TeamBell) -> None:
    bells = [team_bell.join() for _ in range(3)]
    team_bell.ring()
    assert all(bell.is_rung for bell in bells)

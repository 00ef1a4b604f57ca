"""Rows of dead processes come free, and only those."""

from collections import deque
from contextlib import suppress
from typing import Any

import pytest

from faststream_outbox._engine import chore
from faststream_outbox._engine.handling.leases import Leases
from faststream_outbox._engine.handling.rescuer import LONGEST_APART, WITHOUT_HANDLERS_SECONDS, Rescuer
from faststream_outbox._engine.health import Health
from faststream_outbox._engine.wakeups import Wakeups
from tests.engine.fakes import Clock, Lines, ScriptedStore, Trouble, until

DEAD = frozenset({"presence:dead"})
NOBODY: frozenset[str] = frozenset()


@pytest.fixture
async def wakeups() -> Wakeups:
    return Wakeups()


@pytest.fixture
def judge() -> dict[str, bool]:
    return {"can": True}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faststream_outbox._engine.handling.rescuer.INTERVAL_SECONDS", 0.0)


@pytest.fixture
async def rescuer(
    store: ScriptedStore, leases: Leases, wakeups: Wakeups, log: Lines, judge: dict[str, bool]
) -> Rescuer:
    health = Health("database", log)
    return Rescuer(store, leases, wakeups, health, can_judge=lambda: judge["can"])


async def test_who_is_absent_twice_in_a_row_is_a_suspect_in_the_second_pass(
    rescuer: Rescuer, store: ScriptedStore
) -> None:
    store.absent = [DEAD, DEAD, NOBODY]
    for _ in range(4):
        await rescuer.run_once()
    assert store.suspects == [NOBODY, DEAD, DEAD, NOBODY]


async def test_after_a_slow_pass_there_is_a_long_rest(
    rescuer: Rescuer, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open snapshot lets passes grow; they are not to keep the database busy. What fails says nothing of that."""
    clock, rests = Clock(), []
    passes = deque([0.5, 600.0, 30.0, 0.0])
    monkeypatch.setattr(chore, "time", clock)
    rescue = store.rescue

    async def slow(**options: Any) -> Any:
        clock.now += (seconds := passes.popleft())
        if seconds == 30.0:
            raise Trouble("it does not answer")
        return await rescue(**options)

    async def sleep(seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr(store, "rescue", slow)
    monkeypatch.setattr(rescuer, "sleep", sleep)
    for _ in range(5):
        with suppress(Trouble, IndexError):
            await rescuer.run_once()
    assert rests == [0.0, 0.5 * chore.TIMES_APART, LONGEST_APART, LONGEST_APART, 0.0]


async def test_a_process_without_handlers_looks_less_often(
    store: ScriptedStore, leases: Leases, wakeups: Wakeups, log: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = {"are": False}
    clock = Clock()
    monkeypatch.setattr("faststream_outbox._engine.handling.rescuer.time", clock)
    rescuer = Rescuer(
        store, leases, wakeups, Health("d", log), can_judge=lambda: True, has_handlers=lambda: handlers["are"]
    )
    store.absent = [NOBODY] * 9
    await rescuer.run_once()
    clock.now += WITHOUT_HANDLERS_SECONDS - 1.0
    await rescuer.run_once()
    assert len(store.suspects) == 1
    clock.now += 1.0
    await rescuer.run_once()
    assert len(store.suspects) == 2
    handlers["are"] = True
    await rescuer.run_once()
    assert len(store.suspects) == 3


async def test_who_came_back_is_no_suspect(rescuer: Rescuer, store: ScriptedStore) -> None:
    store.absent = [DEAD, NOBODY, DEAD]
    for _ in range(3):
        await rescuer.run_once()
    assert store.suspects == [NOBODY, DEAD, NOBODY]


async def test_a_failed_pass_is_not_between_two_in_a_row(rescuer: Rescuer, store: ScriptedStore) -> None:
    store.absent = [DEAD, DEAD]
    await rescuer.run_once()
    store.script.next_failures["rescue"] = deque([Trouble("no")])
    with pytest.raises(Trouble):
        await rescuer.run_once()
    await rescuer.run_once()
    assert store.suspects == [NOBODY, DEAD, NOBODY]


async def test_nobody_is_suspected_just_after_the_database_came_back(
    rescuer: Rescuer, store: ScriptedStore, judge: dict[str, bool]
) -> None:
    store.absent = [DEAD] * 4
    judge["can"] = False
    await rescuer.run_once()
    await rescuer.run_once()
    judge["can"] = True
    await rescuer.run_once()
    assert store.suspects == [NOBODY, NOBODY, DEAD]


async def test_consumers_of_freed_rows_are_woken(rescuer: Rescuer, store: ScriptedStore, wakeups: Wakeups) -> None:
    orders, mails = wakeups.register(["orders"]), wakeups.register(["mails"])
    store.freed_queues = frozenset({"orders"})
    await rescuer.run_once()
    assert orders.is_rung
    assert not mails.is_rung


async def test_nothing_is_asked_before_this_process_has_a_name(
    rescuer: Rescuer, store: ScriptedStore, leases: Leases
) -> None:
    leases.token.value = ""
    await rescuer.run_once()
    assert store.script.calls.total() == 0


async def test_a_stop_makes_no_last_pass(rescuer: Rescuer, store: ScriptedStore) -> None:
    rescuer.interval = 60.0
    rescuer.start()
    await until(lambda: True)
    await rescuer.stop(60.0)
    assert store.script.calls.total() == 0

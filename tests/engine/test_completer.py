"""Outcomes are written: together, in order, again and again if need be, and before the end."""

import asyncio
from collections import deque

import pytest

from faststream_outbox._engine import completer as completer_module
from faststream_outbox._engine.completer import Completer
from faststream_outbox._engine.health import Health
from faststream_outbox._engine.leases import Leases
from faststream_outbox._engine.wakeups import Wakeups
from faststream_outbox._values.outcome import Dead, Delivered, Outcome, Released, Retry, Settlement
from tests.engine.fakes import Lines, ScriptedStore, Trouble, make_row, until


@pytest.fixture
async def completer(store: ScriptedStore, leases: Leases, log: Lines) -> Completer:
    return Completer(store, leases, Wakeups(), asyncio.Lock(), Health("database", log))


def put(completer: Completer, *ids: int) -> None:
    for row_id in ids:
        completer.put(Settlement(make_row(row_id), Delivered()))


def written(store: ScriptedStore) -> list[int]:
    return [row.id for row, _ in store.settled]


async def test_what_gathers_during_a_write_goes_with_the_next(completer: Completer, store: ScriptedStore) -> None:
    store.script.hanging.add("settle")
    completer.start()
    put(completer, 1)
    await until(lambda: store.script.calls["settle"] == 1)
    put(completer, 2, 3, 4)
    await store.script.let_go("settle")
    await until(lambda: len(store.settled) == 4)
    assert written(store) == [1, 2, 3, 4]
    assert store.script.calls["settle"] == 2
    await completer.stop()


async def test_what_gathers_in_the_pause_after_a_write_goes_together_and_a_stop_ends_the_pause(
    completer: Completer, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completer_module, "GATHER_SECONDS", 3600.0)
    completer.start()
    put(completer, 1)
    await until(lambda: written(store) == [1])
    for row_id in (2, 3):
        put(completer, row_id)
        await asyncio.sleep(0.01)
    assert written(store) == [1]
    async with asyncio.timeout(5):
        await completer.stop(grace=None)
    assert written(store) == [1, 2, 3]
    assert store.script.calls["settle"] == 2


async def test_with_a_whole_write_waiting_there_is_no_pause(
    completer: Completer, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completer_module, "GATHER_SECONDS", 3600.0)
    monkeypatch.setattr(completer_module, "MAX_WRITE", 3)
    put(completer, *range(6))
    completer.start()
    await until(lambda: len(store.settled) == 6)
    await completer.stop()


async def test_a_write_is_bounded(completer: Completer, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completer_module, "MAX_WRITE", 3)
    put(completer, *range(8))
    completer.start()
    await until(lambda: len(store.settled) == 8)
    assert store.script.calls["settle"] == 3
    await completer.stop()


async def test_every_outcome_is_written_as_it_is(completer: Completer, store: ScriptedStore) -> None:
    outcomes: list[Outcome] = [Delivered(), Retry(1.0, "e"), Dead("rejected"), Released(started=True), Released()]
    settlements = [Settlement(make_row(number), outcome) for number, outcome in enumerate(outcomes)]
    for settlement in settlements:
        completer.put(settlement)
    completer.start()
    await until(lambda: store.settled)
    assert store.settled == settlements
    await completer.stop()


async def test_a_lease_is_let_go_once_its_outcome_is_written(
    completer: Completer, store: ScriptedStore, leases: Leases
) -> None:
    leases.hold([make_row(1)], 60.0)
    store.script.failing["settle"] = Trouble("no")
    put(completer, 1)
    completer.start()
    await until(lambda: completer.health.is_down)
    assert make_row(1) in leases
    store.script.failing.clear()
    await until(lambda: make_row(1) not in leases)
    await completer.stop()


async def test_a_failing_write_is_made_again_in_order_until_it_works(
    completer: Completer, store: ScriptedStore, log: Lines
) -> None:
    store.script.failing["settle"] = Trouble("no")
    put(completer, 1, 2)
    completer.start()
    await until(lambda: store.script.calls["settle"] == 2)
    put(completer, 3)
    assert written(store) == []
    store.script.failing.clear()
    await until(lambda: len(store.settled) == 3)
    assert written(store) == [1, 2, 3]
    assert len(log.errors) == len(log.recoveries) == 1
    await completer.stop()


async def test_a_write_that_was_cut_off_is_made_by_the_next_start(completer: Completer, store: ScriptedStore) -> None:
    store.script.hanging.add("settle")
    put(completer, 1, 2)
    completer.start()
    await until(lambda: store.script.calls["settle"])
    await completer.stop(0.01)
    assert written(store) == []
    await store.script.let_go("settle")
    put(completer, 3)
    completer.start()
    await until(lambda: len(store.settled) == 3)
    assert written(store) == [1, 2, 3]
    await completer.stop()


async def test_a_stop_writes_what_is_left(completer: Completer, store: ScriptedStore) -> None:
    put(completer, *range(2500))
    completer.start()
    await completer.stop(5.0)
    assert written(store) == list(range(2500))


async def test_a_stop_goes_on_through_failures(completer: Completer, store: ScriptedStore) -> None:
    store.script.next_failures["settle"] = deque([Trouble("once"), Trouble("twice")])
    put(completer, 1)
    completer.start()
    await completer.stop(5.0)
    assert written(store) == [1]


async def test_a_stop_without_a_database_keeps_to_its_grace(completer: Completer, store: ScriptedStore) -> None:
    store.script.failing["settle"] = Trouble("no")
    put(completer, 1)
    completer.start()
    async with asyncio.timeout(2.5):
        await completer.stop(0.05)
    assert store.script.calls["settle"] < 5
    assert completer.has_more()


async def test_idle_it_does_nothing(
    completer: Completer, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = 0
    run_once = completer.run_once

    async def counted() -> None:
        nonlocal rounds
        rounds += 1
        await run_once()

    monkeypatch.setattr(completer, "run_once", counted)
    put(completer, 1)
    completer.start()
    await until(lambda: store.settled)
    await asyncio.sleep(0.02)
    assert rounds <= 3
    assert store.script.calls["settle"] == 1
    await completer.stop()


async def test_it_shares_one_connection_with_the_rest_of_the_upkeep(
    store: ScriptedStore, leases: Leases, log: Lines
) -> None:
    writes = asyncio.Lock()
    completer = Completer(store, leases, Wakeups(), writes, Health("database", log))
    async with writes:
        put(completer, 1)
        completer.start()
        await asyncio.sleep(0.01)
        assert store.script.calls["settle"] == 0
    await until(lambda: store.settled)
    await completer.stop()


def test_it_is_behind_only_with_a_whole_write_waiting(completer: Completer) -> None:
    put(completer, *range(completer_module.MAX_WRITE - 1))
    assert not completer.is_behind
    put(completer, 0)
    assert completer.is_behind


async def test_a_row_that_comes_again_rings_its_queue(store: ScriptedStore, leases: Leases, log: Lines) -> None:
    wakeups = Wakeups()
    bells = {queue: wakeups.register([queue]) for queue in ("again", "back", "gone")}
    completer = Completer(store, leases, wakeups, asyncio.Lock(), Health("database", log))
    completer.put(Settlement(make_row(1, queue="again"), Retry(1.0)))
    completer.put(Settlement(make_row(2, queue="back"), Released()))
    completer.put(Settlement(make_row(3, queue="gone"), Delivered()))
    completer.start()
    await until(lambda: len(store.settled) == 3)
    await completer.stop()
    assert [queue for queue, bell in bells.items() if bell.is_rung] == ["again", "back"]

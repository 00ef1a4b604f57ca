"""Outcomes are written: together, in order, again and again if need be, and before the end."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import pytest

from faststream_outbox._engine.handling import completer as completer_module
from faststream_outbox._engine.handling import leases as leases_module
from faststream_outbox._engine.handling import set_aside
from faststream_outbox._engine.handling.completer import Completer
from faststream_outbox._engine.handling.leases import Leases
from faststream_outbox._engine.health import Health
from faststream_outbox._engine.wakeups import Wakeups
from faststream_outbox._values.outcome import DELIVERED, Dead, Delivered, Outcome, Released, Retry, Settlement
from tests.engine.fakes import Clock, Lines, ScriptedStore, Trouble, until
from tests.rows import make_row


@pytest.fixture
async def completer(store: ScriptedStore, leases: Leases, log: Lines) -> Completer:
    return Completer(store, leases, Wakeups(), asyncio.Lock(), Health("database", log), log=log)


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
    completer = Completer(store, leases, Wakeups(), writes, Health("database", log), log=log)
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
    completer = Completer(store, leases, wakeups, asyncio.Lock(), Health("database", log), log=log)
    completer.put(Settlement(make_row(1, queue="again"), Retry(1.0)))
    completer.put(Settlement(make_row(2, queue="back"), Released()))
    completer.put(Settlement(make_row(3, queue="gone"), Delivered()))
    completer.start()
    await until(lambda: len(store.settled) == 3)
    await completer.stop()
    assert [queue for queue, bell in bells.items() if bell.is_rung] == ["again", "back"]


class Settled:
    """A completer with leased rows, some of which have an outcome that the database refuses."""

    def __init__(self, completer: Completer, store: ScriptedStore, leases: Leases) -> None:
        self.completer, self.store, self.leases = completer, store, leases

    def put(self, *ids: int, queue: str = "orders", outcome: Outcome = DELIVERED) -> None:
        rows = [make_row(row_id, queue=queue) for row_id in ids]
        self.leases.hold(rows, 60.0)
        for row in rows:
            self.completer.put(Settlement(row, outcome))

    def refuse(self, *ids: int) -> None:
        self.store.script.refused.update(dict.fromkeys(ids, Trouble("a trigger says no")))

    @property
    def writes(self) -> int:
        return self.store.script.calls["settle"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (set_aside, leases_module):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
async def settled(clock: Clock, completer: Completer, store: ScriptedStore, leases: Leases) -> AsyncIterator[Settled]:
    yield Settled(completer, store, leases)
    await completer.stop(5.0)


async def test_a_refused_outcome_holds_up_no_other_and_its_row_keeps_its_lease(settled: Settled, log: Lines) -> None:
    settled.refuse(2)
    settled.put(1, 2, 3)
    settled.completer.start()
    await until(lambda: settled.completer.set_aside)
    settled.put(4)
    await until(lambda: written(settled.store) == [1, 3, 4])
    assert settled.leases.ids == [2]
    assert settled.completer.set_aside == 1
    assert not settled.completer.has_more()
    assert not settled.completer.health.is_down
    [line] = log.errors
    assert "2 in 'orders'" in line
    assert "a trigger says no" in line
    assert "Correct" in line


async def test_what_is_set_aside_keeps_nothing_of_its_message(settled: Settled) -> None:
    settled.refuse(1)
    row = make_row(1, payload=b"x" * 100, headers={"a": "b"})
    settled.leases.hold([row], 0.0)
    settled.completer.put(Settlement(row, Delivered()))
    settled.completer.start()
    await until(lambda: settled.completer.set_aside)
    [leased] = settled.leases.to_renew()[0.0]
    assert (leased.id, leased.payload, leased.headers) == (1, b"", {})


async def test_it_is_tried_again_after_growing_delays_until_it_is_written(
    settled: Settled, clock: Clock, log: Lines
) -> None:
    settled.refuse(1)
    settled.put(1)
    settled.completer.start()
    await until(lambda: settled.completer.set_aside)
    waits: list[float] = []
    for attempt in range(2, 10):
        waits.append(settled.completer._set_aside.seconds_to_next_try() or 0.0)
        clock.now += waits[-1]
        settled.completer._work.set()
        await until(lambda attempt=attempt: settled.writes == attempt)
        await until(lambda: (settled.completer._set_aside.seconds_to_next_try() or 0.0) > 0)
    assert 0.5 <= waits[0] <= 1
    assert 30 <= waits[-1] <= 60
    settled.store.script.refused.clear()
    clock.now += 60
    settled.completer._work.set()
    await until(lambda: written(settled.store) == [1])
    assert settled.completer.set_aside == len(settled.leases) == 0
    assert len(log.errors) == 1
    assert any("are written: 1 in 'orders'" in line for _, line in log.all)


async def test_what_is_set_aside_later_does_not_put_off_the_next_try(settled: Settled, clock: Clock) -> None:
    settled.refuse(1, 2)
    settled.put(1)
    settled.completer.start()
    await until(lambda: settled.completer.set_aside == 1)
    due_in = settled.completer._set_aside.seconds_to_next_try() or 0.0
    clock.now += due_in / 2
    settled.put(2)
    await until(lambda: settled.completer.set_aside == 2)
    assert settled.completer._set_aside.seconds_to_next_try() == pytest.approx(due_in / 2)


async def test_without_a_new_outcome_it_wakes_by_itself(
    completer: Completer, store: ScriptedStore, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_aside, "RETRY_SECONDS", (0.002, 0.002))
    completer = Completer(store, leases, Wakeups(), asyncio.Lock(), completer.health, log=Lines())
    settled = Settled(completer, store, leases)
    settled.refuse(1)
    settled.put(1)
    completer.start()
    await until(lambda: settled.writes == 4)
    store.script.refused.clear()
    await until(lambda: written(store) == [1])
    await completer.stop()


async def test_a_retry_that_is_written_in_the_end_rings_its_queue(settled: Settled, clock: Clock, log: Lines) -> None:
    bell = settled.completer._wakeups.register(["orders"])
    settled.refuse(1)
    settled.put(1, outcome=Retry(1.0, "e"))
    settled.completer.start()
    await until(lambda: settled.completer.set_aside)
    assert not bell.is_rung
    settled.store.script.refused.clear()
    clock.now += 60
    settled.completer._work.set()
    await until(lambda: bell.is_rung)


async def test_a_failure_while_it_is_tried_does_not_hold_up_what_else_is_to_be_written(
    settled: Settled, clock: Clock
) -> None:
    settled.refuse(1)
    settled.put(1)
    settled.completer.start()
    await until(lambda: settled.completer.set_aside)
    settled.store.script.next_failures["settle"] = deque([Trouble("of this row's own: its trigger takes too long")])
    clock.now += 60
    settled.put(2)
    await until(lambda: written(settled.store) == [2])
    assert settled.writes == 3


async def test_a_row_whose_lease_is_lost_is_forgotten(settled: Settled, clock: Clock) -> None:
    settled.refuse(1, 2)
    settled.put(1, 2)
    settled.completer.start()
    await until(lambda: settled.completer.set_aside == 2)
    settled.leases.let_go(make_row(1))
    clock.now += 60
    settled.completer._work.set()
    await until(lambda: settled.completer.set_aside == 1)
    assert settled.leases.ids == [2]


async def test_a_thousand_of_them_stop_the_claims_of_their_own_queue_alone(settled: Settled) -> None:
    count = set_aside.MOST_SET_ASIDE
    settled.refuse(*range(count))
    settled.put(*range(count - 1), queue="bad")
    settled.completer.start()
    await until(lambda: settled.completer.set_aside == count - 1)
    assert not settled.completer.full_queues
    settled.put(count - 1, queue="bad")
    settled.put(count, queue="good")
    await until(lambda: written(settled.store) == [count])
    assert set(settled.completer.full_queues) == {"bad"}
    assert not settled.completer.is_behind


async def test_a_stop_tries_it_once_more(settled: Settled) -> None:
    settled.refuse(1, 2)
    settled.put(1, 2)
    settled.completer.start()
    await until(lambda: settled.completer.set_aside == 2)
    del settled.store.script.refused[1]
    async with asyncio.timeout(5):
        await settled.completer.stop(grace=None)
    assert settled.writes == 2
    assert written(settled.store) == [1]
    assert settled.leases.ids == [2]


async def test_many_are_named_in_few_lines(settled: Settled, clock: Clock, log: Lines) -> None:
    settled.refuse(*range(100))
    settled.completer.start()
    for row_id in range(5):
        settled.put(row_id)
        await until(lambda row_id=row_id: settled.completer.set_aside == row_id + 1)
    assert len(log.errors) == 1
    settled.put(*range(5, 50))
    await until(lambda: settled.completer.set_aside == 50)
    clock.now += set_aside.LINE_SECONDS
    settled.completer._work.set()
    await until(lambda: len(log.errors) == 2)
    assert "1 in 'orders'" in log.errors[1]
    assert "and 39 more" in log.errors[1]

"""Leases are kept alive while handlers run."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

import pytest

from faststream_outbox._engine.handling.leases import Leases
from faststream_outbox._engine.handling.renewer import LINGER_SECONDS, Renewer
from faststream_outbox._engine.health import Health
from tests.engine.fakes import Clock, Lines, ScriptedStore, Trouble, until
from tests.rows import make_row


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("faststream_outbox._engine.handling.leases.time", clock)
    return clock


@pytest.fixture
async def renewer(store: ScriptedStore, leases: Leases, log: Lines, clock: Clock) -> AsyncIterator[Renewer]:
    renewer = Renewer(store, leases, asyncio.Lock(), Health("database", log), log)
    renewer.interval = 0.001
    yield renewer
    await renewer.stop()


async def test_nothing_is_renewed_before_a_third_of_the_lease(
    renewer: Renewer, store: ScriptedStore, leases: Leases, clock: Clock
) -> None:
    leases.hold([make_row(1)], 60.0)
    await renewer.run_once()
    clock.now += 19
    await renewer.run_once()
    assert store.script.calls.total() == 0


async def test_leases_of_a_length_are_renewed_in_one_call(
    renewer: Renewer, store: ScriptedStore, leases: Leases, clock: Clock
) -> None:
    leases.hold([make_row(1), make_row(2)], 60.0)
    leases.hold([make_row(3)], 30.0)
    clock.now += 21
    await renewer.run_once()
    assert store.renewals == [(60.0, [1, 2]), (30.0, [3])]
    await renewer.run_once()
    assert len(store.renewals) == 2
    clock.now += 21
    await renewer.run_once()
    assert len(store.renewals) == 4


async def test_a_lost_lease_is_told_once_and_no_longer_renewed(
    renewer: Renewer, store: ScriptedStore, leases: Leases, clock: Clock, log: Lines
) -> None:
    leases.hold([make_row(1), make_row(2)], 60.0)
    store.lost = {2}
    for _ in range(3):
        clock.now += 21
        await renewer.run_once()
    assert store.renewals == [(60.0, [1, 2]), (60.0, [1]), (60.0, [1])]
    assert log.warnings == ["leases were lost, others may work on these rows: 2 in 'orders'"]


async def test_many_lost_leases_are_one_line(
    renewer: Renewer, store: ScriptedStore, leases: Leases, clock: Clock, log: Lines
) -> None:
    ids = set(range(500))
    leases.hold([make_row(row_id) for row_id in ids], 60.0)
    store.lost = ids
    clock.now += 21
    await renewer.run_once()
    (line,) = log.warnings
    assert line.endswith("and 490 more")
    assert len(leases) == 0


async def test_a_row_settled_while_the_connection_was_busy_is_left_alone(
    renewer: Renewer, store: ScriptedStore, leases: Leases, clock: Clock, log: Lines
) -> None:
    leases.hold([make_row(1), make_row(2)], 60.0)
    clock.now += 21
    async with renewer._writes:
        renewing = asyncio.create_task(renewer.run_once())
        await asyncio.sleep(0.01)
        leases.let_go(make_row(1))
    await renewing
    assert store.renewals == [(60.0, [2])]
    leases.let_go(make_row(2))
    assert log.warnings == []


async def test_nothing_is_asked_if_all_were_settled_meanwhile(
    renewer: Renewer, store: ScriptedStore, leases: Leases, clock: Clock
) -> None:
    leases.hold([make_row(1)], 60.0)
    clock.now += 21
    async with renewer._writes:
        renewing = asyncio.create_task(renewer.run_once())
        await asyncio.sleep(0.01)
        leases.let_go(make_row(1))
    await renewing
    assert store.renewals == []


async def test_a_renewal_that_failed_is_made_again(
    renewer: Renewer, store: ScriptedStore, leases: Leases, clock: Clock, log: Lines
) -> None:
    leases.hold([make_row(1)], 60.0)
    clock.now += 21
    store.script.next_failures["renew"] = deque([Trouble("no")])
    renewer.start()
    await until(lambda: store.renewals)
    assert make_row(1) in leases
    assert len(log.errors) == len(log.recoveries) == 1
    assert log.warnings == []


async def test_a_handler_of_the_same_row_in_a_later_delivery_keeps_its_lease(
    renewer: Renewer, store: ScriptedStore, leases: Leases, clock: Clock
) -> None:
    leases.hold([make_row(1, deliveries=1)], 60.0)
    clock.now += 21
    leases.hold([make_row(1, deliveries=2)], 60.0)
    store.lost = {1}
    await renewer.run_once()
    assert make_row(1, deliveries=2) in leases
    assert make_row(1, deliveries=1) not in leases


async def test_the_connection_for_leases_is_let_go_a_while_after_the_last_of_them(
    renewer: Renewer, store: ScriptedStore, leases: Leases, clock: Clock
) -> None:
    store.reserve()
    leases.hold([make_row(1)], 600.0)
    clock.now += LINGER_SECONDS + 1
    await renewer.run_once()
    assert store.is_reserved, "a lease is held"
    leases.hold([], 600.0)
    leases.let_go(make_row(1))
    await renewer.run_once()
    assert not store.is_reserved, "that nothing was claimed does not count as a claim"
    store.reserve()
    leases.hold([make_row(2)], 600.0)
    leases.let_go(make_row(2))
    clock.now += LINGER_SECONDS - 1
    await renewer.run_once()
    assert store.is_reserved, "the next message may come soon"
    clock.now += 2
    await renewer.run_once()
    assert not store.is_reserved

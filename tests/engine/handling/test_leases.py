"""Which leases this process holds, and when they are to be renewed."""

import pytest

from faststream_outbox._engine.handling import leases as leases_module
from faststream_outbox._engine.handling.leases import Leases
from tests.engine.fakes import Clock
from tests.rows import make_row


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(leases_module, "time", clock)
    return clock


def test_a_lease_is_renewed_after_a_third_of_its_time(clock: Clock, leases: Leases) -> None:
    row = make_row()
    leases.hold([row], 60.0)
    clock.now += 19.9
    assert leases.to_renew() == {}
    clock.now += 0.2
    assert leases.to_renew() == {60.0: [row]}


def test_a_renewed_lease_waits_for_another_third(clock: Clock, leases: Leases) -> None:
    leases.hold([make_row()], 60.0)
    clock.now += 25
    leases.hold([make_row()], 60.0)
    assert leases.to_renew() == {}
    assert len(leases) == 1


def test_leases_are_grouped_by_their_length(clock: Clock, leases: Leases) -> None:
    leases.hold([make_row(1), make_row(2)], 60.0)
    leases.hold([make_row(3)], 6.0)
    clock.now += 30
    assert {seconds: [row.id for row in rows] for seconds, rows in leases.to_renew().items()} == {
        60.0: [1, 2],
        6.0: [3],
    }


def test_a_row_let_go_is_not_renewed(clock: Clock, leases: Leases) -> None:
    leases.hold([make_row()], 60.0)
    leases.let_go(make_row())
    leases.let_go(make_row())
    clock.now += 60
    assert leases.to_renew() == {}


def test_two_deliveries_of_a_row_are_two_leases(leases: Leases) -> None:
    leases.hold([make_row(deliveries=1)], 60.0)
    leases.hold([make_row(deliveries=2)], 60.0)
    leases.let_go(make_row(deliveries=1))
    assert make_row(deliveries=1) not in leases
    assert make_row(deliveries=2) in leases

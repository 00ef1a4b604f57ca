"""What one look adds to what is known of barred rows."""

from collections.abc import Sequence

import pytest

from faststream_outbox._store.postgres import leaps
from faststream_outbox._store.postgres.leaps import Barred, Leap, _joined

FLOOR = 10


def found(start: int, edge: int, *barriers: tuple[int, int, int]) -> list[Sequence[int | str | None]]:
    """Return the records of a look; of a barrier the id, the first row behind it, and how many."""
    return [("q", 0, start, edge, *each, None, None) for each in barriers or ((None, None, None),)]


def test_a_look_from_the_edge_adds_to_what_is_known() -> None:
    before = Leap(100, {5: Barred(20, 30)})
    assert _joined(before, found(100, 200, (5, 110, 7), (90, 120, 1)), floor=FLOOR) == Leap(
        200, {5: Barred(20, 37), 90: Barred(120, 1)}
    )


def test_a_look_that_finds_nothing_new_leaves_what_is_known() -> None:
    before = Leap(100, {5: Barred(20, 30)})
    assert _joined(before, found(100, 150), floor=FLOOR) == Leap(150, before.barriers)


def test_a_barrier_that_is_gone_takes_those_behind_it_along() -> None:
    """The look began at its first row, and has found what stands behind others from there on."""
    before = Leap(100, {5: Barred(20, 30), 6: Barred(40, 30), 7: Barred(60, 30)})
    assert _joined(before, found(40, 100, (7, 60, 30)), floor=FLOOR) == Leap(
        100, {5: Barred(20, 30), 7: Barred(60, 30)}
    )


def test_a_look_from_the_floor_forgets_what_was_known() -> None:
    """One whose rows are all below the floor, and that is gone, would begin each look there."""
    before = Leap(100, {5: Barred(FLOOR - 2, 30), 6: Barred(40, 30)})
    assert _joined(before, found(FLOOR, 100, (6, 40, 30)), floor=FLOOR) == Leap(100, {6: Barred(40, 30)})


def test_of_too_many_the_first_are_known_and_the_edge_is_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaps, "MOST_BARRIERS", 2)
    before = Leap(100, {5: Barred(20, 30)})
    looked = found(100, 200, (6, 110, 1), (7, 120, 1), (8, 130, 1))
    assert _joined(before, looked, floor=FLOOR) == Leap(120, {5: Barred(20, 30), 6: Barred(110, 1)})


@pytest.mark.parametrize(("rows", "is_worth_while"), [(leaps.WORTH_ROWS - 1, False), (leaps.WORTH_ROWS, True)])
def test_a_leap_is_for_many_rows(rows: int, *, is_worth_while: bool) -> None:
    assert Leap(100, {5: Barred(20, 1), 6: Barred(30, rows - 1)}).is_worth_while is is_worth_while

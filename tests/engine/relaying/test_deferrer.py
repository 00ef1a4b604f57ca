"""Which rows are deferred while a part of the destination is down."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from faststream_outbox._engine.relaying.deferrer import Deferrer
from faststream_outbox._values.outcome import ACCEPTED, SLOTS, Deferred, Refused, Settlement, Unsent, Verdict, slot_of
from faststream_outbox._values.row import OutboxRow

DOWN = Unsent(ConnectionError("no leader"), part="p")
OTHER = Unsent(ConnectionError("no leader"), part="q")
BEHIND = Unsent()


class FakeParts:
    """What the test says: seconds to the next try, by part."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = seconds

    def seconds_to_next_try(self, part: str) -> float | None:
        return self.seconds.get(part)


def rows(*keys: str | None, waited: Sequence[int] = ()) -> list[OutboxRow]:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    return [
        OutboxRow(
            id=number,
            queue="orders",
            key=key,
            idempotency_key=str(number),
            payload=b"",
            headers={},
            attempts_count=0,
            deliveries_count=0,
            created_at=at,
            last_attempt_at=at if number in waited else None,
        )
        for number, key in enumerate(keys)
    ]


def delays(settlements: Sequence[Settlement]) -> dict[int, float | None]:
    assert all(isinstance(outcome, Deferred) for _, outcome in settlements)
    return {row.id: outcome.delay for row, outcome in settlements if isinstance(outcome, Deferred)}


def test_of_each_key_the_first_row_is_deferred_and_one_of_the_part_tries_again() -> None:
    deferrer = Deferrer(FakeParts(p=0.3))
    verdicts: list[Verdict] = [DOWN, ACCEPTED, DOWN, DOWN, BEHIND, DOWN, DOWN]
    taken = rows("a", "x", "a", "b", "b", None, None)
    found, parts = deferrer.settlements(taken, verdicts, is_full=True)
    assert delays(found) == {0: 0.3, 3: None, 5: None, 6: None}
    assert {outcome.slot for _, outcome in found if isinstance(outcome, Deferred)} == {slot_of("p")}
    assert parts == {"p"}


def test_each_part_has_a_row_that_tries_and_a_slot_of_its_own() -> None:
    deferrer = Deferrer(FakeParts(p=0.3, q=4.0))
    found, _ = deferrer.settlements(rows("a", "b", "c", "d"), [DOWN, OTHER, DOWN, OTHER], is_full=True)
    assert delays(found) == {0: 0.3, 1: 4.0, 2: None, 3: None}
    assert len({outcome.slot for _, outcome in found if isinstance(outcome, Deferred)}) == 2
    assert 0 <= slot_of("p") < SLOTS


def test_where_no_others_can_stand_behind_them_only_rows_that_waited_before_are_deferred() -> None:
    deferrer = Deferrer(FakeParts(p=0.3))
    found, _ = deferrer.settlements(rows("a", "b", "c", waited=[1]), [DOWN, DOWN, DOWN], is_full=False)
    assert delays(found) == {1: 0.3}


def test_nothing_is_deferred_that_is_no_matter_of_a_part_that_is_down() -> None:
    verdicts: list[Verdict] = [Unsent(OSError()), Refused(OSError()), BEHIND, ACCEPTED, OTHER]
    deferrer = Deferrer(FakeParts(p=0.3))
    assert not any(deferrer.settlements(rows("a", "b", "c", "d", "e"), verdicts, is_full=True))
    assert not any(Deferrer().settlements(rows("a"), [DOWN], is_full=True))


def test_a_part_is_back_when_it_takes_rows_and_until_its_rows_are_due() -> None:
    parts = FakeParts(p=0.3)
    deferrer = Deferrer(parts)
    assert not deferrer.back()
    deferrer.settlements(rows("a"), [DOWN], is_full=True)
    assert not deferrer.are_parts_down, "this may be rolled back"
    deferrer.note(["p"])
    assert not deferrer.back()
    parts.seconds.clear()
    assert deferrer.back() == ["p"]
    assert deferrer.are_parts_down
    deferrer.forget("p")
    assert not deferrer.back()
    assert not deferrer.are_parts_down


@pytest.mark.parametrize(("part", "slot"), [("orders[0]", 36_991_519), ("ключ", 32_833_818)])
def test_a_slot_is_the_same_in_all_processes(part: str, slot: int) -> None:
    """A hash that Python seeds anew would hide rows of one process from another."""
    assert slot_of(part) == slot

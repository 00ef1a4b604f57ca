"""Whom a broken connection is blamed on."""

from typing import Any
from unittest.mock import Mock

from faststream_outbox._values.outcome import Poison
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders import suspects as module
from faststream_outbox.forwarders.suspects import Suspects


def parcel(number: int, key: str | None = None) -> Parcel:
    row: Any = Mock(id=number, key=key)
    return Parcel(row)


def ids(parcels: Any) -> list[int]:
    return [parcel.row.id for parcel in parcels]


def test_after_the_second_time_alone_after_the_third_poison() -> None:
    suspects, error = Suspects(), ConnectionError("broke")
    for breaks, alone, dead in ((1, False, False), (2, True, False), (3, True, True)):
        suspects.suspect({1: error})
        suspects.confirm([1])
        assert ids(suspects.part([parcel(1)]).alone) == ([1] if alone else []), breaks
        assert (suspects.verdict_on(1) == Poison("invalid", error)) is dead, breaks
    assert ids(suspects.part([parcel(2)]).together) == [2]


def test_one_of_them_for_certain() -> None:
    suspects = Suspects()
    suspects.suspect_at_once({1: ValueError(), 2: ValueError()})
    assert ids(suspects.part([parcel(1), parcel(2)]).alone) == [1, 2]
    assert suspects.verdict_on(1) is None


def test_what_comes_behind_a_suspect_of_its_key_waits() -> None:
    suspects = Suspects()
    suspects.suspect_at_once({2: ValueError(), 3: ValueError(), 6: ValueError()})
    keys = ("a", "b", "a", "a", "b", None, None)
    together, alone, waiting = suspects.part([parcel(number, key) for number, key in enumerate(keys)])
    assert (ids(together), ids(alone), ids(waiting)) == ([0, 1, 4, 5], [2, 6], [3])


def test_an_accusation_can_be_taken_back() -> None:
    suspects = Suspects()
    for _ in range(9):
        suspects.suspect({1: ConnectionError()})
        suspects.withdraw()
        suspects.confirm([1, 2])
    assert ids(suspects.part([parcel(1)]).together) == [1]


def test_there_is_no_sentence_before_it_is_known_whether_the_server_is_there() -> None:
    suspects = Suspects()
    for _ in range(3):
        suspects.suspect({1: ConnectionError()})
    suspects.confirm([1])
    suspects.confirm([1])
    assert suspects.verdict_on(1) is None
    assert ids(suspects.part([parcel(1, "a"), parcel(2, "a"), parcel(3)]).waiting) == [1, 2]
    suspects.withdraw()
    assert ids(suspects.part([parcel(1)]).alone) == [1]
    assert suspects.verdict_on(1) is None, "two are confirmed, and the third is not"


def test_an_answer_acquits() -> None:
    suspects = Suspects()
    suspects.suspect_at_once({1: ConnectionError()})
    suspects.clear([1, 2])
    assert ids(suspects.part([parcel(1)]).together) == [1]


def test_memory_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MOST_SUSPECTS", 10)
    suspects = Suspects()
    for number in range(100):
        suspects.suspect({number: ConnectionError()})
    assert len(suspects._suspicions) <= 10

"""Whom a broken connection is blamed on."""

from typing import Any
from unittest.mock import Mock

from faststream_outbox._values.outcome import Poison
from faststream_outbox.forwarders.rabbit import suspects as module
from faststream_outbox.forwarders.rabbit.suspects import Suspects


def row(number: int) -> Any:
    return Mock(id=number)


def test_after_the_second_time_alone_after_the_third_poison() -> None:
    suspects, error = Suspects(), ConnectionError("broke")
    for breaks, alone, dead in ((1, False, False), (2, True, False), (3, True, True)):
        suspects.accuse({1}, error)
        assert suspects.is_sent_alone(row(1)) is alone, breaks
        assert (suspects.sentence(row(1)) == Poison("invalid", error)) is dead, breaks
    assert not suspects.is_sent_alone(row(2))


def test_one_of_them_for_certain() -> None:
    suspects = Suspects()
    suspects.accuse({1, 2}, ValueError(), certain=True)
    assert suspects.is_sent_alone(row(1))
    assert suspects.sentence(row(1)) is None


def test_an_accusation_can_be_taken_back() -> None:
    suspects = Suspects()
    for _ in range(9):
        suspects.accuse({1}, ConnectionError())
        suspects.forgive({1, 2})
    assert not suspects.is_sent_alone(row(1))


def test_an_answer_acquits() -> None:
    suspects = Suspects()
    suspects.accuse({1}, ConnectionError(), certain=True)
    suspects.acquit(row(1))
    assert not suspects.is_sent_alone(row(1))


def test_memory_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MOST_SUSPECTS", 10)
    suspects = Suspects()
    for number in range(100):
        suspects.accuse({number}, ConnectionError())
    assert len(suspects._charges) <= 10

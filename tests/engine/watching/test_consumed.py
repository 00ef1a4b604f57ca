"""What a process knows of other processes' consumers, and whether that is all there is to know."""

from collections.abc import Collection

import pytest

from faststream_outbox._engine.watching import consumed as consumed_module
from faststream_outbox._engine.watching.consumed import (
    ANNOUNCE_SECONDS,
    HEARING_SECONDS,
    KEPT_SECONDS,
    MOST_NAMES,
    Consumed,
)
from tests.engine.fakes import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(consumed_module, "time", clock)
    return clock


@pytest.fixture
def own() -> list[str]:
    return []


@pytest.fixture
def consumed(own: Collection[str], clock: Clock) -> Consumed:
    return Consumed(lambda: own)


def test_its_own_queues_are_known_at_any_time(consumed: Consumed, own: list[str]) -> None:
    assert consumed.names() == set()
    own.append("orders")
    assert consumed.names() == {"orders"}
    own.clear()
    assert consumed.names() == set()


def test_a_queue_is_known_until_nothing_was_heard_of_it_for_a_while(consumed: Consumed, clock: Clock) -> None:
    consumed.heard(["orders", "mails"])
    clock.now += KEPT_SECONDS - 1
    consumed.heard(["orders"])
    clock.now += 2
    assert consumed.names() == {"orders"}
    clock.now += KEPT_SECONDS
    assert consumed.names() == set()


def test_several_words_may_be_missed(consumed: Consumed, clock: Clock) -> None:
    consumed.heard(["orders"])
    clock.now += 4 * ANNOUNCE_SECONDS
    assert consumed.names() == {"orders"}


def test_all_are_known_once_it_has_listened_for_two_rounds_without_a_break(consumed: Consumed, clock: Clock) -> None:
    assert not consumed.is_complete
    clock.now += 1000
    assert not consumed.is_complete, "it has not listened"
    consumed.begin()
    clock.now += 2 * ANNOUNCE_SECONDS
    assert not consumed.is_complete
    clock.now += HEARING_SECONDS - 2 * ANNOUNCE_SECONDS
    assert consumed.is_complete
    consumed.end()
    assert not consumed.is_complete
    clock.now += 1000
    consumed.begin()
    assert not consumed.is_complete, "what was said meanwhile was not heard"


def test_names_are_bounded_and_then_nothing_is_sure(consumed: Consumed, clock: Clock) -> None:
    consumed.begin()
    clock.now += HEARING_SECONDS
    consumed.heard(f"queue-{n}" for n in range(2 * MOST_NAMES))
    assert len(consumed.names()) == MOST_NAMES
    assert not consumed.is_complete
    clock.now += KEPT_SECONDS + 1
    consumed.names()
    assert consumed.is_complete

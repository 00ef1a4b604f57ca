"""UUIDs that grow with time."""

import time
from itertools import islice
from uuid import RFC_4122, UUID

import pytest

from faststream_outbox._values import uuid7 as module
from faststream_outbox._values.uuid7 import uuid7s


def uuid7() -> UUID:
    return UUID(next(uuid7s()))


def test_version_and_variant_are_those_of_rfc_9562() -> None:
    for text in islice(uuid7s(at_once=7), 100):
        made = UUID(text)
        assert str(made) == text
        assert (made.version, made.variant) == (7, RFC_4122)


def test_the_first_48_bits_are_the_milliseconds_of_the_clock() -> None:
    before = time.time_ns() // 1_000_000
    milliseconds = uuid7().int >> 80
    assert before <= milliseconds <= time.time_ns() // 1_000_000


def test_a_later_one_is_greater(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    made, many = [], uuid7s(at_once=4)
    for later in range(10):
        monkeypatch.setattr(module.time, "time_ns", lambda later=later: now + later * 1_000_000)
        made.append(UUID(next(many)))
    assert made == sorted(made)
    assert [str(one) for one in made] == sorted(str(one) for one in made)


def test_no_two_are_equal_within_a_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "time_ns", lambda: 0)
    assert len({uuid7() for _ in range(10_000)}) == 10_000
    assert len(set(islice(uuid7s(at_once=1000), 10_000))) == 10_000


@pytest.mark.parametrize("random", [b"\x00" * 10, b"\xff" * 10])
def test_random_bits_never_reach_the_others(monkeypatch: pytest.MonkeyPatch, random: bytes) -> None:
    monkeypatch.setattr(module.time, "time_ns", lambda: 0x0123456789AB * 1_000_000)
    monkeypatch.setattr(module.os, "urandom", lambda _: random)
    made = uuid7()
    assert (made.int >> 80, made.version, made.variant) == (0x0123456789AB, 7, RFC_4122)


def test_every_random_bit_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """74 of 80: all but those in whose place stand the version and the variant."""
    monkeypatch.setattr(module.time, "time_ns", lambda: 0)

    def with_bit(bit: int) -> int:
        monkeypatch.setattr(module.os, "urandom", (1 << bit).to_bytes)
        return uuid7().int

    monkeypatch.setattr(module.os, "urandom", bytes)
    none = uuid7().int
    assert len({with_bit(bit) ^ none for bit in range(80)} - {0}) == 74

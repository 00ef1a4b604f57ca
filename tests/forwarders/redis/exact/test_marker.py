"""What follows from a marker."""

import pytest

from faststream_outbox._values.position import Mark
from faststream_outbox._values.run import NO_RUN
from faststream_outbox.forwarders.redis.exact.marker import (
    KEPT,
    RANDOM_BITS,
    Element,
    Finding,
    ShardMarker,
    count_of,
    element_of,
    first_token,
    judge,
    mark_text,
    next_token,
)
from faststream_outbox.forwarders.redis.exact.script import Message, call

A, B, C, D = (Mark(number, f"key-{number}") for number in range(1, 5))


def token(count: int, chance: int = 7) -> int:
    return count << RANDOM_BITS | chance


def marker(known: int) -> ShardMarker:
    return ShardMarker("m", known, NO_RUN)


ONE = Element(token(1), token(0), [A])
TWO = Element(token(2), token(1), [B])
THREE = Element(token(3), token(2), [C, D])


@pytest.mark.parametrize(
    ("known", "finding"),
    [
        (token(3), Finding(token(3), frozenset())),
        (token(2), Finding(token(3), frozenset({C, D}), 1, token(3))),
        (token(1), Finding(token(3), frozenset({B, C, D}), 2, token(2))),
        (token(0), Finding(token(3), frozenset({A, B, C, D}), 3, token(1))),
        (token(4), Finding(token(3), frozenset({A, B, C, D}), 3, token(1), is_older=True)),
        (token(2, 8), Finding(token(3), frozenset({A, B, C, D}), 3, token(1), is_older=True)),
        (token(0, 8), Finding(token(3), frozenset({A, B, C, D}), 3, token(1), is_cut=True)),
    ],
    ids=["nothing new", "one", "two", "all of it", "older than what is known", "lost between others", "from before"],
)
def test_what_is_there_since(known: int, finding: Finding) -> None:
    assert judge(known, [ONE, TWO, THREE]) == finding
    assert finding.is_whole is not (finding.is_older or finding.is_cut)


def test_no_marker() -> None:
    assert judge(token(0), []) == Finding(None)
    assert judge(token(1), []) == Finding(None, is_gone=True)


def test_what_came_behind_a_marker_that_was_older_is_found() -> None:
    """The position table knows 5, which Redis has lost; what was sent then says that it comes behind 5."""
    healed = Element(token(6), token(5), [D])
    assert judge(token(5), [ONE, TWO, healed]) == Finding(token(6), frozenset({D}), 1, token(6))
    assert judge(token(2), [ONE, TWO, healed]) == Finding(token(6), frozenset({D}), 1, token(6))


def test_the_next_element_comes_behind_what_the_position_table_knows_where_redis_has_lost_it() -> None:
    one = marker(token(5))
    one.learned(judge(one.known, [ONE, TWO]), [], [])
    assert (one.current, one.before) == (token(2), token(5))
    assert count_of(one.next_token()) == 6
    one = marker(token(5))
    one.learned(judge(one.known, []), [], [])
    assert (one.current, one.before) == (None, token(5))


def test_tokens_grow_and_are_never_the_same() -> None:
    assert count_of(first_token()) == 0
    assert count_of(next_token(token(3), token(9))) == 10
    assert len({next_token(token(3)) for _ in range(100)}) > 90
    # That of another kind of destination, under the same forwarder's name.
    assert next_token(2**63 - 2 ** (RANDOM_BITS + 1)) < 2**63


def test_the_position_says_that_rows_wait_until_all_that_was_found_is_settled() -> None:
    one = marker(token(1))
    one.learned(judge(one.known, [ONE, TWO, THREE]), in_hand=[B, C], alive=[D])
    assert one.found == {B, C, D}
    # What no new element tells of is found from the first one on that does.
    assert one.moves_to([B, C]) == -token(2)
    assert one.moves_to([B, C, D]) == token(3)
    assert set(one.waiting) == {D}
    one.taken(token(4))
    assert one.moves_to([B]) == -token(2)
    assert one.moves_to([B, C]) == -token(4)
    one.moved(-token(4))
    assert not one.is_clear
    assert one.is_open


def test_what_waits_is_found_in_the_element_that_tells_of_it() -> None:
    four = Element(token(4), token(3), [D, A])
    assert judge(-token(4), [THREE, four]) == Finding(token(4), frozenset({D, A}), 1, token(4))
    five = Element(token(5), token(4), [D, B])
    assert judge(-token(4), [five]) == Finding(token(5), frozenset({D, B}), 1, token(5))


def test_the_position_says_that_rows_wait_which_the_table_keeps() -> None:
    one = marker(token(1))
    one.taken(token(2))
    one.taken(token(3))
    assert one.moves_to([]) == token(3)
    assert one.stays_behind(token(3)) == -token(2)
    one.moved(-token(2))
    assert not one.is_clear
    # The next hand-over has not got the row, and tells of it anew.
    assert judge(one.known, [ONE, TWO, THREE]).marks == {B, C, D}
    one = marker(-token(2))
    one.learned(judge(one.known, [ONE, TWO, THREE]), [], alive=[B])
    one.taken(token(4))
    assert one.moves_to([]) == -token(4)
    one.moved(-token(4))
    # It is refused once more.
    one = marker(-token(4))
    one.learned(judge(one.known, [THREE, Element(token(4), token(3), [B])]), in_hand=[B], alive=[])
    assert one.moves_to([B]) == token(4)
    assert one.stays_behind(token(4)) == -token(4)
    assert one.stays_behind(-token(4)) is None


def test_what_is_settled_later_waits_for_no_element_of_before() -> None:
    one = marker(token(1))
    one.taken(token(2))
    one.moved(token(2))
    assert one.stays_behind(token(2)) is None
    one.taken(token(3))
    assert one.stays_behind(token(3)) == -token(3)


def test_nothing_waits_where_all_that_was_found_is_in_hand() -> None:
    one = marker(token(1))
    one.learned(judge(one.known, [ONE, TWO, THREE]), in_hand=[B, C, D], alive=[])
    assert not one.waiting
    assert one.before == token(3)
    assert one.moves_to([B, C, D]) == token(3)


def test_a_marker_keeps_what_the_position_table_may_not_know() -> None:
    one = marker(token(1))
    for count in (2, 3, 4):
        one.taken(token(count))
    keep = int(call(one, token(5), [Message(mark_text(A), b"s", (b"x",))], verb=b"RPUSH")[7])
    assert keep == KEPT + 4


@pytest.mark.parametrize("key", ["a:b", "", "ключ\n "])
def test_an_element_is_read_as_it_was_written(key: str) -> None:
    one = marker(token(1))
    marks = [Mark(5, key), Mark(2**63 - 1, "x")]
    command = call(one, token(2), [Message(mark_text(mark), b"s", (b"x",)) for mark in marks], verb=b"RPUSH")
    assert element_of(command[6] + b"\0" + command[9]) == Element(token(2), token(1), marks)

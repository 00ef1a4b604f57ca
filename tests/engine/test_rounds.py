"""The order in which shards are served."""

import math
from collections import Counter
from itertools import pairwise

import pytest

from faststream_outbox._engine import rounds as rounds_module
from faststream_outbox._engine.rounds import (
    FIRST_REST_SECONDS,
    FULL_REST_SECONDS,
    REST_SECONDS,
    ROUND_SECONDS,
    Rounds,
)
from faststream_outbox._values.shard import Shard
from tests.engine.fakes import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rounds_module, "time", clock)
    return clock


def test_every_shard_of_every_queue_is_there_once() -> None:
    rounds = Rounds(["a", "b"], 16)
    assert Counter(rounds.all) == Counter(Shard(queue, number) for queue in "ab" for number in range(16))
    assert rounds.next() == rounds.all


def test_shards_that_all_have_work_are_served_in_turn() -> None:
    rounds = Rounds(["a", "b"], 4)
    served = []
    for _ in range(80):
        shard = rounds.next()[0]
        served.append(shard)
        rounds.visited(shard)
        rounds.fruitful()
    assert set(Counter(served).values()) == {10}
    assert len(set(served[:8])) == 8


def test_a_claim_begins_one_shard_later_each_time() -> None:
    rounds = Rounds(["a"], 4)
    first = []
    for _ in range(8):
        first.append(rounds.next()[0])
        rounds.advance()
    assert Counter(first) == {Shard("a", number): 2 for number in range(4)}


def test_a_busy_shard_does_not_keep_others_from_their_turn() -> None:
    rounds = Rounds(["a"], 4)
    busy, other = rounds.next()[0], rounds.next()[3]
    rounds.visited(busy)
    order = rounds.next()
    assert order.index(other) < order.index(busy)


def test_a_fruitless_shard_is_left_out_until_the_round_is_over() -> None:
    rounds = Rounds(["a"], 3)
    shard = rounds.next()[1]
    rounds.visited(shard)
    rounds.fruitless([shard])
    assert shard not in rounds.next()
    assert len(rounds.next()) == 2
    rounds.finish()
    assert shard in rounds.next()


def test_fruitless_shards_alone_end_the_round() -> None:
    rounds = Rounds(["a"], 16)
    visits = 0
    while shards := rounds.next():
        rounds.visited(shards[len(shards) // 2])
        rounds.fruitless([shards[len(shards) // 2]])
        visits += 1
    assert visits == 16


def test_few_rows_are_taken_from_all_shards_at_once_and_many_from_one() -> None:
    rounds = Rounds(["a", "b"], 3)
    breadths = []
    for step in (rounds.widen, rounds.widen, rounds.widen, rounds.widen, rounds.narrow, rounds.widen):
        step()
        breadths.append(rounds.breadth)
    assert breadths == [2, 4, 6, 6, 1, 2]


def test_a_round_that_never_ends_leaves_no_shard_out_for_long(clock: Clock) -> None:
    rounds = Rounds(["a"], 2)
    busy, held = rounds.next()
    rounds.fruitless([held])
    rounds.visited(busy)
    rounds.fruitful()
    assert held not in rounds.next()
    clock.now += ROUND_SECONDS * 1.01
    rounds.visited(busy)
    rounds.fruitful()
    assert held in rounds.next()


def test_all_shards_stay_known_while_some_are_left_out() -> None:
    rounds = Rounds(["a"], 3)
    rounds.fruitless(rounds.next()[:1])
    assert len(rounds.all) == 3


def test_a_shard_of_no_round_is_refused_instead_of_searched_for_ever() -> None:
    with pytest.raises(ValueError, match="stranger"):
        Rounds(["a"], 3).visited(Shard("stranger", 0))


def test_processes_do_not_begin_in_step() -> None:
    assert len({Rounds(["a"], 16).next()[0] for _ in range(60)}) > 4


# ------------------------------------------------------------------------------------------------------- a part is down


def looked_at(rounds: Rounds, clock: Clock, seconds: float, *, are_full: bool) -> list[float]:
    """When the only shard is looked at, if all its rows are for a part that is down."""
    began, looks = clock.now, []
    while clock.now < began + seconds:
        if shards := rounds.next():
            looks.append(clock.now - began)
            rounds.put_off(shards, are_full=are_full)
        clock.now += 0.01
    return looks


@pytest.mark.parametrize(("are_full", "longest"), [(True, FULL_REST_SECONDS), (False, REST_SECONDS)])
def test_a_shard_whose_rows_are_all_for_a_part_that_is_down_is_looked_at_ever_less(
    are_full: bool, longest: float, clock: Clock
) -> None:
    looks = looked_at(Rounds(["a"], 1), clock, 120.0, are_full=are_full)
    gaps = [later - earlier for earlier, later in pairwise(looks)]
    assert gaps[0] == pytest.approx(FIRST_REST_SECONDS, abs=0.02)
    assert gaps[:3] == pytest.approx([FIRST_REST_SECONDS * 2**n for n in range(3)], abs=0.02)
    assert max(gaps) == pytest.approx(longest, abs=0.02)


def test_other_shards_do_not_rest(clock: Clock) -> None:
    rounds = Rounds(["a"], 4)
    resting, *others = rounds.all
    for _ in range(10):
        rounds.put_off([resting], are_full=True)
    assert sorted(rounds.next()) == sorted(others)
    assert rounds.is_whole, "what rings meanwhile is not for a shard that rests"
    clock.now += FULL_REST_SECONDS
    assert sorted(rounds.next()) == sorted(rounds.all)


def test_a_shard_of_which_rows_can_be_carried_rests_no_longer(clock: Clock) -> None:
    rounds = Rounds(["a"], 2)
    first, second = rounds.all
    for _ in range(10):
        rounds.put_off([first, second], are_full=True)
    rounds.take_up([first])
    assert rounds.next() == [first]
    rounds.put_off([first], are_full=True)
    clock.now += FIRST_REST_SECONDS
    assert rounds.next() == [first], "it begins anew"


def test_how_long_none_is_to_be_looked_at(clock: Clock) -> None:
    rounds = Rounds(["a"], 2)
    assert rounds.seconds_of_rest == math.inf
    first, second = rounds.all
    rounds.put_off([first, second], are_full=True)
    rounds.put_off([first], are_full=True)
    clock.now += FIRST_REST_SECONDS / 2
    assert rounds.seconds_of_rest == pytest.approx(FIRST_REST_SECONDS / 2)
    clock.now += 1.0
    assert rounds.seconds_of_rest == 0.0


def test_a_rest_that_nobody_takes_back_ends_no_sleep_once_the_shard_was_looked_at(clock: Clock) -> None:
    """Another lane, or another process, has emptied it: no row of it can ever be carried here."""
    rounds = Rounds(["a"], 2)
    first, _ = rounds.all
    rounds.put_off([first], are_full=True)
    clock.now += FULL_REST_SECONDS
    assert rounds.seconds_of_rest == 0.0
    assert first in rounds.next()
    assert rounds.seconds_of_rest == math.inf

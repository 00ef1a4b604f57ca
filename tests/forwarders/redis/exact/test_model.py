"""Any sequence of deaths, pauses, delayed steps, cut connections and fail-overs: each row just once.

The model drives the decisions of the product (``marker``) through a world of one shard. It must find each careless
variant.
"""

from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from faststream_outbox.forwarders.redis.exact.marker import judge

from .world import KEEPING, KEYS, LOSING, PROCESSES, Action, Chance, Play, Rules, walk

CHANCE = st.builds(
    Chance,
    number=st.integers(0, PROCESSES - 1),
    limit=st.integers(1, 5),
    key=st.integers(0, KEYS),
    steps=st.integers(0, 7),
    index=st.integers(0, 8),
)
WALKS = 500
"""Of those that must find nothing."""
MOST_WALKS = 6000
"""Until a careless variant must be found."""


class Machine(RuleBasedStateMachine):
    actions: ClassVar[list[Action]] = KEEPING

    def __init__(self) -> None:
        super().__init__()
        self.play = Play(Rules())

    @rule(data=st.data(), chance=CHANCE)
    def something_happens(self, data: Any, chance: Chance) -> None:
        data.draw(st.sampled_from(self.actions))(self.play, chance)

    @invariant()
    def each_row_is_there_once(self) -> None:
        self.play.check()

    def teardown(self) -> None:
        self.play.end()


class LosingMachine(Machine):
    actions = LOSING


@pytest.mark.parametrize("machine", [Machine, LosingMachine])
def test_each_row_is_there_once(machine: type[Machine]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=40, stateful_step_count=30, deadline=None))


def test_each_row_is_there_once_on_long_ways() -> None:
    for seed in range(WALKS):
        world = walk(Rules(), seed).world
        assert (world.losses, world.repeats) == (0, 0), "nothing is counted where nothing is lost"


def test_what_a_server_has_lost_is_counted_and_stops_nothing() -> None:
    assert sum(walk(Rules(), seed, losses=True).world.losses for seed in range(WALKS)) > 0


CARELESS = {
    "the step does not compare": Rules(compares=False),
    "the marker is written behind the messages": Rules(one_step=False),
    "what was found is sent again": Rules(settles_found_rows=False),
    "the position passes what was found and is not settled": Rules(waits_for_found_rows=False),
    "the position passes what the table keeps": Rules(stays_behind_kept_rows=False),
    "the marker keeps its last element alone": Rules(keeps_what_is_unknown=False),
    "the marker names what was not taken": Rules(names_only_what_was_taken=False),
    "the marker does not tell of what waits": Rules(tells_what_waits=False),
    "only the last element counts": Rules(judges=lambda known, there: judge(known, there[-1:])),
}


@pytest.mark.parametrize("careless", CARELESS.values(), ids=CARELESS)
def test_a_careless_variant_is_found(careless: Rules) -> None:
    assert any(fails(careless, seed) for seed in range(MOST_WALKS))


LOSING_CARELESS = {
    "a loss is not counted": Rules(
        judges=lambda known, there: replace(judge(known, there), is_older=False, is_gone=False)
    )
}


@pytest.mark.parametrize("careless", LOSING_CARELESS.values(), ids=LOSING_CARELESS)
def test_a_careless_variant_is_found_where_a_server_loses(careless: Rules) -> None:
    assert any(fails(careless, seed, losses=True) for seed in range(MOST_WALKS))


def fails(rules: Rules, seed: int, *, losses: bool = False) -> bool:
    try:
        world = walk(rules, seed, losses=losses).world
    except AssertionError:
        return True
    return not losses and bool(world.losses or world.repeats)

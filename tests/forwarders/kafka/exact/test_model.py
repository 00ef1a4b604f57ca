"""Any sequence of deaths, pauses, delayed bytes, cut connections, changes of leaders and expiry: each row just once.

The model drives the decisions of the product (``book``, ``look``) through a world that behaves as Kafka was measured
to. It must find each careless variant.
"""

from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from .play import ACTIONS, PROCESSES, Action, Chance, Play, walk
from .world import KEYS, PARTS, Rules, key_of

CHANCE = st.builds(
    Chance,
    number=st.integers(0, PROCESSES - 1),
    limit=st.integers(1, 4),
    waiting_key=st.integers(0, KEYS),
    steps=st.integers(0, 11),
    index=st.integers(0, 8),
    flag=st.booleans(),
)
WALKS = 400
"""Of those that must find nothing."""
MOST_WALKS = 6000
"""Until a careless variant must be found."""


class Machine(RuleBasedStateMachine):
    actions: ClassVar[list[Action]] = ACTIONS

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


def test_each_row_is_there_once() -> None:
    run_state_machine_as_test(Machine, settings=settings(max_examples=40, stateful_step_count=30, deadline=None))


def test_each_row_is_there_once_on_long_ways() -> None:
    for seed in range(WALKS):
        walk(Rules(), seed)


def test_a_log_that_loses_records_stops_nothing() -> None:
    """What can be known then has limits; all rows are sent."""
    for seed in range(WALKS):
        walk(Rules(), seed, damages=True)


CARELESS = {
    "no look in doubt": Rules(looks=False),
    "settled from what the leader says": Rules(trusts_the_hint=True),
    "the first batch is not read back": Rules(reads_back=False),
    "contents are not compared": Rules(compares=lambda sent, found: len(sent) == len(found)),
    "the take-over is not written before the send": Rules(claims_first=False),
    "the take-over does not ask who was last": Rules(claims_what_it_saw=False),
    "the producer is written with the outcomes only": Rules(keeps_the_producer=False),
    "a database that fails over is taken for the one before": Rules(heeds_the_run=False),
    "rows that are gone are not remembered": Rules(remembers_the_dead=False),
    "positions pass records whose rows are not settled": Rules(waits_for_found_rows=False),
    "positions pass records whose rows the table keeps": Rules(stays_behind_kept_rows=False),
    "time stamps of the past": Rules(stamp=lambda _now, created: created),
    "rows without a partition of their own": Rules(
        part_of=lambda row_id, turn, _routing: PARTS[(key_of(row_id) + turn) % 2]
    ),
    "rows go another way while they are in doubt": Rules(heeds_the_routing=False),
    "the take-over says how rows are routed now": Rules(keeps_the_routing=False),
}


@pytest.mark.parametrize("careless", CARELESS.values(), ids=CARELESS)
def test_a_careless_variant_is_found(careless: Rules) -> None:
    assert any(fails(careless, seed) for seed in range(MOST_WALKS))


def fails(rules: Rules, seed: int) -> bool:
    try:
        walk(rules, seed)
    except AssertionError:
        return True
    return False

"""G1 to G5, in any order of publishing, carrying, refusals, outages, crashes and replays, on a real table."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import Table as SqlTable

from .life.machine import LifeMachine, Step
from .life.mutants import MUTANTS, Mutant
from .life.world import World

LIVES = int(os.environ.get("OUTBOX_LIVES", "0"))
"""More lives than usual, and others each time."""

WANTED = [
    *(
        "rolled back",
        "copies",
        "Refused",
        "Poison",
        "Unsent",
        "tried in an outage",
        "dead",
        "dead, holds its key",
        "replayed",
    ),
    *("crash before sending", "crash before settling", "crash before the commit", "repeated after crash"),
    *("connection lost before sending", "repeated after connection lost", "repeated after no answer"),
    *("written later", "hand-overs that send nothing"),
]


@pytest.fixture
def create_world(database_url: str, outbox_table: SqlTable, dlq_table: SqlTable) -> Iterator[Callable[[], World]]:
    """Create one at the time that the test chooses: what is mutated before has its effect there."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(World(database_url, outbox_table, dlq_table)))


def live(world: World, lives: int, *, hold_key: bool, **options: Any) -> None:
    """Let a number of lives pass."""
    run_state_machine_as_test(
        type("Life", (LifeMachine,), {"world": world, "hold_key": hold_key}),
        settings=settings(
            max_examples=lives,
            stateful_step_count=40,
            deadline=None,
            derandomize=not LIVES,
            suppress_health_check=list(HealthCheck),
            **options,
        ),
    )


def live_through(world: World, mutant: Mutant) -> None:
    """Let one life pass, as the mutant's story has it."""
    life = type("Life", (LifeMachine,), {"world": world, "hold_key": mutant.hold_key})()
    try:
        life.begin(moves=True, batch_size=mutant.batch_size)
        for what, arguments in mutant.story:
            life.happens(Step(what, arguments))
            life.promises_hold()
    finally:
        life.teardown()


def find_out(world: World, mutant: Mutant) -> None:
    if mutant.story:
        live_through(world, mutant)
    else:
        live(world, 30, hold_key=mutant.hold_key, phases=[Phase.generate], report_multiple_bugs=False)


def test_any_life_keeps_the_promises(create_world: Callable[[], World]) -> None:
    world = create_world()
    for hold_key in (False, True):
        live(world, LIVES or 8, hold_key=hold_key)
    assert [what for what in WANTED if not world.seen[what]] == [], f"too little has happened: {dict(world.seen)}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_broken_promise_is_found_out(
    create_world: Callable[[], World], mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant.mutate(monkeypatch)
    world = create_world()
    with pytest.raises(AssertionError, match=mutant.breaks):
        find_out(world, mutant)


@pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if mutant.story], ids=str)
def test_a_story_ends_well_without_its_mutant(create_world: Callable[[], World], mutant: Mutant) -> None:
    live_through(create_world(), mutant)

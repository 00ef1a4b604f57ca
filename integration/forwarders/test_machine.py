"""G1 to G5, in any order of publishing, carrying, refusals, outages, crashes and replays, on a real table."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import Table as SqlTable

from .life.machine import LifeMachine
from .life.mutants import MUTANTS, Mutate
from .life.world import World

LIVES = int(os.environ.get("OUTBOX_LIVES", "0"))
"""More lives than usual, and others each time."""

Live = Callable[..., World]


@pytest.fixture
def live(database_url: str, outbox_table: SqlTable, dlq_table: SqlTable) -> Iterator[Live]:
    """Let a number of lives pass."""
    worlds: list[World] = []

    def live(lives: int, **options: Any) -> World:
        worlds.append(World(database_url, outbox_table, dlq_table))
        run_state_machine_as_test(
            type("Life", (LifeMachine,), {"world": worlds[0]}),
            settings=settings(
                max_examples=lives,
                stateful_step_count=40,
                deadline=None,
                derandomize=not LIVES,
                suppress_health_check=list(HealthCheck),
                **options,
            ),
        )
        return worlds[0]

    yield live
    for world in worlds:
        world.close()


def test_any_life_keeps_the_promises(live: Live) -> None:
    seen = live(LIVES or 30).seen
    wanted = ("Accepted", "Refused", "Poison", "Unsent", "rolled back", "replayed", "dead")
    print(sorted(seen.items()))
    assert [what for what in wanted if not seen[what]] == [], f"too little has happened: {dict(seen)}"


@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda mutate: mutate.__name__)
def test_a_broken_promise_is_found_out(live: Live, mutate: Mutate, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(AssertionError, match=MUTANTS[mutate]):
        live(100, phases=[Phase.generate], report_multiple_bugs=False)

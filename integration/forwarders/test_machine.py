"""G1 to G5, in any order of publishing, carrying, refusals, outages, crashes and replays, on a real table."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import Table as SqlTable

from .life.machine import LifeMachine
from .life.world import World

LIVES = int(os.environ.get("OUTBOX_LIVES", "40"))
"""More of them are random ones."""


@pytest.fixture
def world(database_url: str, outbox_table: SqlTable, dlq_table: SqlTable) -> Iterator[World]:
    world = World(database_url, outbox_table, dlq_table)
    yield world
    world.close()


def live(world: World, machine: type[LifeMachine] = LifeMachine, lives: int = LIVES, **options: object) -> None:
    chosen = type("Life", (machine,), {"world": world})
    run_state_machine_as_test(
        chosen,
        settings=settings(
            max_examples=lives,
            stateful_step_count=30,
            deadline=None,
            derandomize="OUTBOX_LIVES" not in os.environ,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
            **options,
        ),
    )


def test_any_life_keeps_the_promises(world: World) -> None:
    live(world)
    print(world.seen)

"""One runtime on a scripted store, lanes to a scripted destination, and the rule that no test leaves a task behind."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from tenacity.wait import wait_fixed

from faststream_outbox._engine.backoff import Backoff
from faststream_outbox._engine.failure import FailurePolicy
from faststream_outbox._engine.handling import rescuer
from faststream_outbox._engine.handling.leases import Leases
from faststream_outbox._engine.relaying.breaker import Breaker
from faststream_outbox._engine.relaying.lane import Lane
from faststream_outbox._engine.relaying.remembered import Remembered
from faststream_outbox._engine.relaying.team import Team
from faststream_outbox._engine.runtime import Runtime
from faststream_outbox.retry import ConstantRetry
from tests.engine.fakes import TOKEN, Lines, ScriptedDestination, ScriptedStore


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    # What was cancelled and not awaited needs one turn of the loop to end.
    await asyncio.sleep(0)
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    assert not left


@pytest.fixture
async def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
def log() -> Lines:
    return Lines()


@pytest.fixture
async def leases() -> Leases:
    leases = Leases()
    leases.token.value = TOKEN
    return leases


@pytest.fixture
async def runtime(store: ScriptedStore, log: Lines, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Runtime]:
    monkeypatch.setattr(rescuer, "INTERVAL_SECONDS", 0.02)
    monkeypatch.setattr(rescuer, "WITHOUT_HANDLERS_SECONDS", 0.02)
    runtime = Runtime(store, log, listen=True)
    yield runtime
    await store.script.let_go(*store.script.hanging)
    await runtime.stop(0.0)


@pytest.fixture
async def destination(log: Lines) -> ScriptedDestination:
    return ScriptedDestination(log)


@pytest.fixture
async def breaker(destination: ScriptedDestination) -> Breaker:
    # Quick probes, so that an outage costs these tests no time.
    return Breaker(destination.health, 1, wait_fixed(0.001))


@pytest.fixture
async def team(breaker: Breaker, log: Lines) -> Team:
    return Team(breaker, remembered=Remembered("test", log))


@pytest.fixture
async def make(runtime: Runtime, destination: ScriptedDestination, team: Team) -> AsyncIterator[Callable[..., Lane]]:
    made: list[Lane] = []

    def make(*, retry: Any = None, hold_key: bool = False, queues: Sequence[str] = ("orders",), **options: Any) -> Lane:
        values: dict[str, Any] = {"batch_size": 500, "send_timeout": 10.0, "min_interval": 1.0, "max_interval": 10.0}
        failure = FailurePolicy(retry=retry or ConstantRetry(delay_seconds=60), hold_key=hold_key)
        lane = runtime.lane("test", queues, destination, team, failure, **{**values, **options})
        lane._backoff = Backoff(0.001, 0.004)
        runtime._lookout.start()
        made.append(lane)
        return lane

    yield make
    await destination.script.let_go(*destination.script.hanging)
    for lane in made:
        await lane.stop()

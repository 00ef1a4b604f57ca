"""One runtime on a scripted store, and the rule that no test leaves a task behind."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from faststream_outbox._engine import rescuer
from faststream_outbox._engine.leases import Leases
from faststream_outbox._engine.runtime import Runtime
from tests.engine.fakes import TOKEN, Lines, ScriptedStore


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
    leases.token = TOKEN
    return leases


@pytest.fixture
async def runtime(store: ScriptedStore, log: Lines, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Runtime]:
    monkeypatch.setattr(rescuer, "INTERVAL_SECONDS", 0.02)
    runtime = Runtime(store, log, listen=True)
    yield runtime
    await store.script.let_go(*store.script.hanging)
    await runtime.stop(0.0)

"""Surveys are made beside all else, and nothing waits for them."""

import logging
from typing import Any

import pytest

from faststream_outbox._engine import surveyor
from faststream_outbox._engine.health import Health
from faststream_outbox._engine.rounds import Rounds
from faststream_outbox._engine.runtime import Runtime
from faststream_outbox._engine.surveyor import Surveyor
from faststream_outbox._values.outcome import DELIVERED, Outcome
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard
from faststream_outbox.schema import SHARDS
from tests.engine.fakes import Clock, Lines, ScriptedDestination, ScriptedStore, Trouble, until


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surveyor, "INTERVAL_SECONDS", 0.0)


@pytest.fixture
def shards() -> list[Shard]:
    return [Shard("orders", 0)]


@pytest.fixture
def database(log: Lines) -> Health:
    return Health("database", log)


@pytest.fixture
async def surveys(store: ScriptedStore, shards: list[Shard], database: Health, log: Lines) -> Surveyor:
    return Surveyor(store, lambda: shards, database, log)


async def test_the_shards_of_now_are_surveyed(surveys: Surveyor, store: ScriptedStore, shards: list[Shard]) -> None:
    await surveys.run_once()
    shards.append(Shard("mails", 1))
    await surveys.run_once()
    shards.clear()
    await surveys.run_once()
    assert store.surveyed == [[Shard("orders", 0)], [Shard("orders", 0), Shard("mails", 1)]]


async def test_where_nothing_happens_surveys_are_rare(
    store: ScriptedStore, shards: list[Shard], database: Health, log: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = {"is": True}
    surveys = Surveyor(store, lambda: shards, database, log, is_quiet=lambda: quiet["is"])
    clock = Clock()
    monkeypatch.setattr(surveyor, "time", clock)
    for seconds in (0.0, 1.0, surveyor.QUIET_INTERVAL_SECONDS - 2.0):
        clock.now += seconds
        await surveys.run_once()
    assert len(store.surveyed) == 1
    clock.now += 1.0
    await surveys.run_once()
    await surveys.run_once()
    assert len(store.surveyed) == 2
    quiet["is"] = False
    await surveys.run_once()
    assert len(store.surveyed) == 3


@pytest.mark.parametrize("kind", ["wake-up", "lane", "consumer"])
async def test_a_wake_up_and_rows_that_are_found_end_the_quiet(
    runtime: Runtime, store: ScriptedStore, destination: ScriptedDestination, kind: str
) -> None:
    runtime.start()
    await until(lambda: runtime.hears)
    news = runtime.wakeups.news
    news._noted_at = float("-inf")
    assert runtime._is_quiet()
    if kind == "wake-up":
        runtime.wakeups.wake("orders")
        assert not runtime._is_quiet()
        return
    rounds = Rounds(["orders"], SHARDS, news)
    if kind == "lane":
        rounds.visited(Shard("orders", 0))
    else:
        rounds.found()
    assert not runtime._is_quiet()


async def test_nothing_is_asked_while_the_database_is_down(
    surveys: Surveyor, store: ScriptedStore, database: Health
) -> None:
    database.failed(Trouble("away"), "lane")
    await surveys.run_once()
    assert store.surveyed == []
    database.recovered("lane")
    await surveys.run_once()
    assert len(store.surveyed) == 1


async def test_a_survey_that_fails_is_told_once_and_quietly_and_is_no_failure_of_the_database(
    surveys: Surveyor, store: ScriptedStore, database: Health, log: Lines
) -> None:
    store.script.failing["survey"] = Trouble("no")
    surveys.start()
    await until(lambda: len(store.surveyed) >= 3)
    assert not database.is_down
    store.script.failing.clear()
    await until(lambda: not surveys.health.is_down)
    await surveys.stop()
    assert [level for level, _ in log.all] == [logging.INFO, logging.INFO]
    assert "survey of the outbox table" in log.all[0][1]
    assert log.recoveries


async def test_nothing_waits_for_a_survey_that_takes_long(
    runtime: Runtime, store: ScriptedStore, destination: ScriptedDestination, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claims, hand-overs, outcomes and renewals go on."""
    handled: list[int] = []

    async def handle(row: OutboxRow) -> Outcome:
        handled.append(row.id)
        await until(lambda: len(store.renewals) > renewed)
        return DELIVERED

    store.script.hanging.add("survey")
    runtime._renewer.interval = 0.001
    runtime.start()
    lane = make()
    consumer = runtime.consumer(
        "mails",
        ["mails"],
        handle,
        workers=1,
        batch_size=1,
        lease_seconds=0.01,
        min_interval=0.01,
        max_interval=0.01,
    )
    await until(lambda: store.surveyed)
    assert {*store.surveyed[0]} == {Shard(queue, shard) for queue in ("mails", "orders") for shard in range(SHARDS)}
    lane.start()
    consumer.start()
    renewed = len(store.renewals)
    sent, mailed = store.publish("orders"), store.publish("mails")
    await until(lambda: destination.accepted == [sent] and [each.row.id for each in store.settled] == [mailed])
    assert len(store.surveyed) == 1
    await lane.stop()
    await consumer.stop(1.0)

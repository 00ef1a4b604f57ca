"""The loops together: what they cost at rest, a database that comes late or goes away, and how long a stop takes."""

import asyncio
import time
from typing import Any

import pytest

from faststream_outbox._engine import runtime as runtime_module
from faststream_outbox._engine import service as service_module
from faststream_outbox._engine.failure import FailurePolicy
from faststream_outbox._engine.handling.consumer import Consumer
from faststream_outbox._engine.relaying.breaker import Breaker
from faststream_outbox._engine.relaying.lane import Lane
from faststream_outbox._engine.relaying.team import Team
from faststream_outbox._engine.runtime import Runtime
from faststream_outbox._store.protocol import PRESENCE_PREFIX
from faststream_outbox._values.outcome import Delivered, Outcome
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.retry import NoRetry
from tests.engine.fakes import Lines, ScriptedDestination, ScriptedStore, Trouble, never, until

ALL_CALLS = {"claim", "settle", "renew", "rescue", "hand_over", "hand_over_settle", "commit", "outlook", "listen"}


async def deliver(row: OutboxRow) -> Outcome:
    return Delivered()


async def hang(row: OutboxRow) -> Outcome:
    await never()
    return Delivered()


def make_consumer(runtime: Runtime, execute: Any = deliver, *, name: str = "test", **options: Any) -> Consumer:
    values: dict[str, Any] = {"workers": 1, "batch_size": 10, "lease_seconds": 60.0}
    return runtime.consumer(name, [name], execute, min_interval=1.0, max_interval=10.0, **{**values, **options})


def make_lane(runtime: Runtime, destination: ScriptedDestination, queue: str = "orders") -> Lane:
    return runtime.lane(
        "test",
        [queue],
        destination,
        Team(Breaker(destination.health, 1)),
        FailurePolicy(retry=NoRetry()),
        batch_size=100,
        send_timeout=10.0,
        min_interval=1.0,
        max_interval=10.0,
    )


async def stop_all(runtime: Runtime, *parts: Consumer | Lane, grace: float | None) -> None:
    await asyncio.gather(*(part.stop(grace) for part in parts))
    await runtime.stop(grace)


async def test_waking_is_harmless_before_the_start_and_after_the_end(store: ScriptedStore, log: Lines) -> None:
    runtime = Runtime(store, log, listen=True)
    bell = runtime.wakeups.register(["orders"])
    runtime.wake("orders")
    assert not bell.is_rung
    runtime.start()
    # From another thread, as publish_sync does.
    await asyncio.to_thread(runtime.wake, "orders")
    await until(lambda: bell.is_rung)
    await runtime.stop(0.0)
    runtime.wake("orders")

    async def start_and_stop() -> Runtime:
        gone = Runtime(store, log, listen=True)
        gone.start()
        await gone.stop(0.0)
        return gone

    gone = await asyncio.to_thread(asyncio.run, start_and_stop())
    gone.wake("orders")


async def test_at_rest_it_asks_the_database_a_few_times_a_second(
    runtime: Runtime, store: ScriptedStore, log: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime._rescuer.interval = 0.7
    consumers = [make_consumer(runtime, name=f"queue-{number}") for number in range(5)]
    lanes = [make_lane(runtime, ScriptedDestination(log)) for _ in range(2)]
    runtime.start()
    parts: list[Consumer | Lane] = [*consumers, *lanes]
    for part in parts:
        part.start()
    await until(lambda: store.script.calls["outlook"])
    await asyncio.sleep(0.05)
    before = store.script.calls.copy()
    began = time.monotonic()
    await asyncio.sleep(0.8)
    during = store.script.calls - before
    # Longer than it was asked for, on a busy machine.
    seconds = time.monotonic() - began
    await stop_all(runtime, *parts, grace=1.0)
    # One rescue, and no more than one look for all of them together.
    assert 1 <= during["rescue"] <= 1 + seconds / 0.7
    assert during["renew"] == during["settle"] == during["listen"] == 0
    looks = 1 + int(seconds)
    assert during["claim"] == during["hand_over"] == 0
    # Fetchers and lanes may have begun to rest at two times.
    assert during["outlook"] <= 2 * looks


async def test_start_and_stop_any_number_of_times(runtime: Runtime, store: ScriptedStore) -> None:
    await runtime.stop(None)
    for _ in range(10):
        runtime.start()
        runtime.start()
        await asyncio.sleep(0)
        await asyncio.gather(runtime.stop(1.0), runtime.stop(0.0))
    consumer = make_consumer(runtime)
    runtime.start()
    consumer.start()
    store.publish("test")
    await until(lambda: not store.rows)
    await stop_all(runtime, consumer, grace=1.0)


async def test_a_database_that_comes_late(runtime: Runtime, store: ScriptedStore, log: Lines) -> None:
    store.script.failing["*"] = Trouble("not yet")
    destination = ScriptedDestination(log)
    consumer, lane = make_consumer(runtime), make_lane(runtime, destination)
    runtime.start()
    consumer.start()
    lane.start()
    await until(lambda: store.script.calls["listen"] >= 2 and store.script.calls["hand_over"] >= 2)
    # Without a name there is nothing to claim under, and nothing to rescue for.
    assert store.script.calls["claim"] == store.script.calls["rescue"] == 0
    store.publish("test")
    store.publish("orders")
    store.script.failing.clear()
    await until(lambda: not store.rows)
    assert len(log.errors) == len(log.recoveries) == 2
    await stop_all(runtime, consumer, lane, grace=1.0)


async def test_a_stop_before_the_database_ever_answered_is_prompt(
    runtime: Runtime, store: ScriptedStore, log: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_module, "UPKEEP_SECONDS", 60.0)
    store.script.hanging |= ALL_CALLS
    consumer = make_consumer(runtime)
    runtime.start()
    consumer.start()
    await until(lambda: store.script.calls["listen"])
    async with asyncio.timeout(2.5):
        await stop_all(runtime, consumer, grace=60.0)


async def test_a_line_that_is_down_alone_is_told_once(runtime: Runtime, store: ScriptedStore, log: Lines) -> None:
    consumer = make_consumer(runtime)
    runtime.start()
    consumer.start()
    await until(lambda: store.lines)
    store.script.failing["listen"] = Trouble("no more connections")
    store.lines[0].break_off()
    await until(lambda: store.script.calls["listen"] >= 3)
    for _ in range(20):
        store.publish("test")
        consumer._fetcher._wakeup.ring()
        await until(lambda: not store.rows)
    assert not runtime.health.is_down
    assert len(log.errors) == len(log.troubles) == 1
    assert log.recoveries == []
    assert all("LISTEN" in line for line in log.troubles)
    await stop_all(runtime, consumer, grace=1.0)


async def test_what_a_dead_process_left_is_handled(runtime: Runtime, store: ScriptedStore) -> None:
    store.freed_queues = frozenset({"test"})
    consumer = make_consumer(runtime)
    runtime.start()
    consumer.start()
    # By itself the consumer would need more than 15 s for so many looks.
    await until(lambda: store.script.calls["claim"] > 5)
    await stop_all(runtime, consumer, grace=1.0)


async def test_without_listening_everything_works_by_polling(store: ScriptedStore, log: Lines) -> None:
    runtime = Runtime(store, log, listen=False)
    store.publish("test")
    consumer = make_consumer(runtime)
    runtime.start()
    consumer.start()
    await until(lambda: not store.rows)
    assert not runtime.leases.token.value.startswith(PRESENCE_PREFIX)
    assert store.script.calls["listen"] == 0
    await stop_all(runtime, consumer, grace=1.0)


async def test_short_leases_are_looked_at_often(runtime: Runtime) -> None:
    make_consumer(runtime, lease_seconds=3.0)
    make_consumer(runtime, lease_seconds=60.0)
    assert runtime._renewer.interval == 0.5


async def test_a_broken_logger_stops_nothing(store: ScriptedStore, caplog: pytest.LogCaptureFixture) -> None:
    def broken(level: int, message: str, error: BaseException | None) -> None:
        raise Trouble("disk full")

    runtime = Runtime(store, broken, listen=True)
    store.script.failing["*"] = Trouble("no")
    consumer = make_consumer(runtime)
    runtime.start()
    consumer.start()
    await until(lambda: store.script.calls["listen"] >= 2)
    store.script.failing.clear()
    store.publish("test")
    await until(lambda: not store.rows)
    assert "disk full" in caplog.text
    await stop_all(runtime, consumer, grace=1.0)


# The end


async def test_outcomes_are_written_and_only_then_the_presence_goes(runtime: Runtime, store: ScriptedStore) -> None:
    consumer = make_consumer(runtime)
    runtime.start()
    consumer.start()
    await until(lambda: store.lines)
    store.script.hanging.add("settle")
    store.publish("test")
    await until(lambda: store.script.calls["settle"])
    await consumer.stop(1.0)
    stopping = asyncio.create_task(runtime.stop(5.0))
    await asyncio.sleep(0.02)
    assert store.lines[0].is_open
    assert "outbox-renewer" in {task.get_name() for task in asyncio.all_tasks()}
    await store.script.let_go("settle")
    await stopping
    assert store.rows == []
    assert not store.lines[0].is_open


async def test_a_clean_stop_gives_every_row_back(runtime: Runtime, store: ScriptedStore) -> None:
    gate = asyncio.Event()

    async def slow(row: OutboxRow) -> Outcome:
        await gate.wait()
        return Delivered()

    for _ in range(50):
        store.publish("test")
    consumer = make_consumer(runtime, slow, workers=4)
    runtime.start()
    consumer.start()
    await until(lambda: consumer._stock._busy == 4)
    stopping = asyncio.create_task(stop_all(runtime, consumer, grace=5.0))
    await asyncio.sleep(0)
    gate.set()
    await stopping
    assert len(store.rows) == 46
    assert all(row.acquired_at is None and row.deliveries_count == 0 for row in store.rows)


@pytest.mark.parametrize("calls", [{"settle"}, {"claim", "outlook"}, {"rescue"}, {"renew"}, ALL_CALLS])
async def test_whatever_hangs_a_stop_takes_its_grace_and_little_more(
    runtime: Runtime, store: ScriptedStore, log: Lines, monkeypatch: pytest.MonkeyPatch, calls: set[str]
) -> None:
    monkeypatch.setattr(runtime_module, "WRITE_SECONDS", 0.1)
    monkeypatch.setattr(runtime_module, "UPKEEP_SECONDS", 0.1)
    store.publish("test")
    store.publish("orders")
    consumer = make_consumer(runtime, hang, lease_seconds=0.01, workers=2)
    destination = ScriptedDestination(log)
    destination.script.hanging |= {"send"}
    lane = make_lane(runtime, destination)
    runtime.start()
    consumer.start()
    lane.start()
    await until(lambda: destination.sent and consumer._stock._busy)
    store.script.hanging |= calls
    runtime.wakeups.wake_all()
    await asyncio.sleep(0.05)
    began = time.monotonic()
    # For handlers and lanes, then for outcomes, then for each of the two upkeepers: half a second.
    await stop_all(runtime, consumer, lane, grace=0.2)
    # What ignored its cancellation would take CANCEL_SECONDS longer.
    assert time.monotonic() - began < 0.2 + 0.1 + 2 * 0.1 + 2.3


@pytest.mark.parametrize(("grace", "patience"), [(0.0, 1.0), (2.0, 2.0), (60.0, 5.0), (None, 5.0)])
async def test_writing_outcomes_is_not_granted_the_whole_grace_again(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, grace: float | None, patience: float
) -> None:
    granted = []

    async def stop(seconds: float | None) -> None:
        granted.append(seconds)

    monkeypatch.setattr(runtime._completer, "stop", stop)
    await runtime.stop(grace)
    monkeypatch.undo()
    assert granted == [patience]


async def test_a_cancelled_stop_still_ends_everything(
    runtime: Runtime, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "CANCEL_SECONDS", 0.1)
    consumer = make_consumer(runtime)
    runtime.start()
    consumer.start()
    await until(lambda: store.lines)
    store.script.hanging.add("settle")
    store.publish("test")
    await until(lambda: store.script.calls["settle"])
    await consumer.stop(0.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await runtime.stop(60.0)
    await until(lambda: not [task for task in asyncio.all_tasks() if task.get_name().startswith("outbox-")])
    assert not store.lines[0].is_open

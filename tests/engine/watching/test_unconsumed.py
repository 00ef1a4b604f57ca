"""A queue that nobody consumes is told of once, and no other queue ever."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

from faststream_outbox._engine.health import Health
from faststream_outbox._engine.runtime import Runtime
from faststream_outbox._engine.watching import consumed as consumed_module
from faststream_outbox._engine.watching import unconsumed as unconsumed_module
from faststream_outbox._engine.watching.consumed import HEARING_SECONDS, Consumed
from faststream_outbox._engine.watching.unconsumed import UNCONSUMED_SECONDS, QueueWatcher, UnconsumedQueue
from faststream_outbox._store.protocol import Announcement, Lag
from faststream_outbox._values.shard import Shard
from tests.engine.fakes import Clock, Lines, ScriptedStore, Trouble, until

Look = Callable[..., Awaitable[None]]


class AgingStore(ScriptedStore):
    """Rows get older by the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.first_at: dict[str, float] = {}
        """Since when the first row of a queue has waited."""
        self.announced: list[list[str]] = []

    async def lag(self, shards: list[Shard], *, at_most: int | None = None) -> Lag:  # type: ignore[override]
        [queue] = {shard.queue for shard in shards}
        rows, _ = await super().lag(shards, at_most=at_most)
        return Lag(rows, self._clock.now - self.first_at[queue] if rows else 0.0)

    async def unconsumed(self, consumed: list[str], *, limit: int) -> list[str]:  # type: ignore[override]
        await self.script.step("unconsumed")
        return await super().unconsumed(consumed, limit=limit)

    async def announce(self, queues: list[str]) -> None:  # type: ignore[override]
        await self.script.step("announce")
        self.announced.append(list(queues))

    def wait(self, queue: str) -> None:
        self.publish(queue)
        self.first_at.setdefault(queue, self._clock.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(consumed_module, "time", clock)
    monkeypatch.setattr(unconsumed_module, "time", clock)
    monkeypatch.setattr(unconsumed_module, "LOOK_SECONDS", 0.0)
    return clock


@pytest.fixture
async def store(clock: Clock) -> AgingStore:
    return AgingStore(clock)


@pytest.fixture
def database(log: Lines) -> Health:
    return Health("database", log)


@pytest.fixture
def consumed(clock: Clock) -> Consumed:
    """It has listened for long enough."""
    consumed = Consumed(lambda: ["mails"])
    consumed.begin()
    clock.now += HEARING_SECONDS
    return consumed


@pytest.fixture
async def watcher(store: AgingStore, consumed: Consumed, database: Health, log: Lines) -> AsyncIterator[QueueWatcher]:
    watcher = QueueWatcher(store, consumed, database, log)
    yield watcher
    await watcher.stop()


@pytest.fixture
def look(watcher: QueueWatcher, clock: Clock) -> Look:
    """Look once, half a minute later."""

    async def look(seconds: float = 30.0) -> None:
        clock.now += seconds
        await watcher.run_once()

    return look


async def test_after_a_minute_a_typo_is_told_of_once(
    look: Look, store: AgingStore, consumed: Consumed, log: Lines
) -> None:
    consumed.heard(["orders", "orders.v2", "payments"])
    for queue in ("odrers", "odrers", "odrers", "orders", "mails"):
        store.wait(queue)
    await look()
    assert log.all == []
    for _ in range(5):
        await look()
    assert log.warnings == ["nobody consumes queue 'odrers': 3 rows wait, the first for 60 s; did you mean 'orders'?"]
    assert len(log.all) == 1


async def test_a_queue_is_given_a_minute(look: Look, store: AgingStore, clock: Clock, log: Lines) -> None:
    store.wait("orders")
    for _ in range(11):
        await look(5.0)
    assert log.warnings == []
    await look(5.0)
    assert len(log.warnings) == 1


async def test_without_a_name_like_it_nothing_is_guessed(look: Look, store: AgingStore, log: Lines) -> None:
    store.wait("zzz")
    for _ in range(3):
        await look()
    assert log.warnings == ["nobody consumes queue 'zzz': 1 row waits for 60 s"]


async def test_copies_go_by_the_forwarder_that_they_are_for(look: Look, store: AgingStore, log: Lines) -> None:
    store.wait("orders=>audit")
    for _ in range(3):
        await look()
    [line] = log.warnings
    assert line.startswith("nobody consumes copies of 'orders' for a forwarder 'audit' with tee=True: 1 row waits for")


async def test_a_queue_that_moves_has_a_consumer_that_was_not_heard(
    look: Look, store: AgingStore, log: Lines, clock: Clock
) -> None:
    store.wait("theirs")
    for _ in range(10):
        # Behind by a minute and a half at each look, but the first row is always another one.
        store.first_at["theirs"] = clock.now + 30.0 - 90.0
        await look()
    assert log.warnings == []


async def test_told_again_only_if_it_was_consumed_meanwhile(
    look: Look, store: AgingStore, consumed: Consumed, log: Lines, clock: Clock
) -> None:
    store.wait("orders")
    for _ in range(5):
        await look()
    assert len(log.warnings) == 1
    consumed.heard(["orders"])
    await look()
    clock.now += consumed_module.KEPT_SECONDS
    for _ in range(5):
        await look()
    assert len(log.warnings) == 2


async def test_nothing_is_told_before_everybody_was_heard(
    look: Look, store: AgingStore, consumed: Consumed, log: Lines
) -> None:
    consumed.end()
    store.wait("orders")
    for _ in range(10):
        await look()
    assert store.script.calls["unconsumed"] == 0
    assert log.warnings == []


async def test_while_the_database_is_down_nobody_is_told_on_but_what_is_consumed_here_is_announced(
    look: Look, store: AgingStore, database: Health
) -> None:
    """A single loop that cannot work makes it count as down, and others must not think that this process is gone."""
    database.failed(Trouble("gone"))
    await look()
    assert store.script.calls["unconsumed"] == 0
    assert store.announced == [["mails"]]


async def test_own_queues_are_announced_each_minute(look: Look, store: AgingStore, clock: Clock) -> None:
    began = clock.now
    while clock.now < began + 600:
        await look()
    assert 10 <= len(store.announced) <= 14
    assert store.announced[0] == ["mails"]


async def test_what_fails_is_no_outage_and_costs_one_line(
    watcher: QueueWatcher, store: AgingStore, database: Health, log: Lines
) -> None:
    store.script.failing["unconsumed"] = Trouble("not permitted")
    watcher.start()
    await until(lambda: store.script.calls["unconsumed"] >= 3)
    assert not database.is_down
    assert log.errors == log.warnings == []
    assert len(log.all) == 1
    await watcher.stop()


async def test_a_look_gives_the_longest_backlog_first(watcher: QueueWatcher, store: AgingStore, clock: Clock) -> None:
    store.wait("new")
    store.wait("old")
    store.first_at["old"] -= 100.0
    store.publish("late", activate_in=timedelta(hours=1))
    assert await watcher.look() == [
        UnconsumedQueue(queue="old", rows=1, seconds=100.0, nearest=None),
        UnconsumedQueue(queue="new", rows=1, seconds=0.0, nearest=None),
    ]


async def test_a_runtime_knows_its_own_consumers_and_hears_of_others(
    runtime: Runtime, store: AgingStore, clock: Clock, log: Lines
) -> None:
    bell = runtime.wakeups.register(["own"])
    runtime.start()
    await until(lambda: store.lines and runtime.hears)
    assert await runtime.unconsumed() is None, "who knows who consumes what"
    store.lines[0].say(Announcement(frozenset({"theirs"})))
    for queue in ("own", "theirs", "nobodys"):
        store.wait(queue)
    clock.now += HEARING_SECONDS

    async def found() -> list[str]:
        return [each.queue for each in await runtime.unconsumed() or ()]

    await until(lambda: "theirs" in runtime._consumed.names())
    assert await found() == ["nobodys"]
    del bell
    assert await found() == ["nobodys", "own"]
    store.script.failing["listen"] = Trouble("no line")
    store.lines[0].break_off()
    await until(lambda: not runtime.hears)
    assert await runtime.unconsumed() is None, "who begins to consume now is not heard"
    store.script.failing.clear()
    await until(lambda: len(store.lines) == 2 and runtime.hears)
    assert await runtime.unconsumed() is None
    assert UNCONSUMED_SECONDS >= 60.0

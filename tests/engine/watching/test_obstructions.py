"""Who holds a shard for longer than a hand-over takes is named, once, and nobody else is."""

from collections.abc import Awaitable, Callable, Sequence

import pytest

from faststream_outbox._engine.health import Health
from faststream_outbox._engine.watching import obstructions as module
from faststream_outbox._engine.watching.obstructions import LOOK_SECONDS, Guarded, Obstructions
from faststream_outbox._store.protocol import Holder
from faststream_outbox._values.shard import Shard
from tests.engine.fakes import Clock, Lines, ScriptedStore, Trouble

HERE, THERE = Shard("orders", 1), Shard("orders", 2)
STRANGER = Holder(HERE, "pid 7 of user 'eve'", "7 3/0")


class HeldStore(ScriptedStore):
    def __init__(self) -> None:
        super().__init__()
        self.held: list[Holder] = []
        self.asked: list[list[Shard]] = []

    async def holders(self, shards: Sequence[Shard]) -> list[Holder]:
        self.asked.append(list(shards))
        await self.script.step("holders")
        return self.held


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
async def store() -> HeldStore:
    return HeldStore()


@pytest.fixture
def guarded() -> Guarded:
    return Guarded(shards=[HERE, THERE], patience=2 * LOOK_SECONDS)


@pytest.fixture
async def obstructions(store: HeldStore, log: Lines, clock: Clock, guarded: Guarded) -> Obstructions:
    obstructions = Obstructions(store, Health("outbox database", log), log)

    async def sleep(seconds: float) -> None:
        clock.now += seconds

    obstructions.sleep = sleep  # type: ignore[method-assign]
    obstructions.guard(guarded)
    return obstructions


Look = Callable[[Obstructions], Awaitable[None]]


async def look(obstructions: Obstructions, times: int = 1) -> None:
    for _ in range(times):
        await obstructions.run_once()


async def test_a_stranger_is_named_once_and_as_long_as_it_holds_on(
    obstructions: Obstructions, store: HeldStore, log: Lines, guarded: Guarded
) -> None:
    store.held = [STRANGER]
    await look(obstructions, 2)
    assert (log.warnings, obstructions.of(guarded)) == ([], [])
    await look(obstructions, 5)
    [line] = log.warnings
    assert line.startswith("pid 7 of user 'eve', seen for 60 s, holds the lock of shards that have rows")
    assert "'orders'" in line
    assert obstructions.of(guarded) == ["pid 7 of user 'eve', seen for 3 min"]
    store.held = []
    await look(obstructions)
    assert obstructions.of(guarded) == []


async def test_lanes_at_work_are_no_strangers(
    obstructions: Obstructions, store: HeldStore, log: Lines, guarded: Guarded
) -> None:
    for number in range(10):
        other = Holder(THERE, "pid 8 of user 'app'", "8 3/1")
        store.held = [Holder(HERE, other.who, f"8 3/{number}"), *[other][: number % 2]]
        await look(obstructions)
    assert (log.warnings, obstructions.of(guarded)) == ([], [])


async def test_one_that_comes_back_is_named_again(obstructions: Obstructions, store: HeldStore, log: Lines) -> None:
    for held in ([STRANGER], [], [STRANGER]):
        store.held = held
        await look(obstructions, 4)
    assert len(log.warnings) == 2


async def test_one_session_with_many_shards_is_one_line(
    obstructions: Obstructions, store: HeldStore, log: Lines, guarded: Guarded
) -> None:
    store.held = [STRANGER, STRANGER._replace(shard=THERE)]
    await look(obstructions, 4)
    assert len(log.warnings) == len(obstructions.of(guarded)) == 1


async def test_holders_of_other_shards_are_those_of_others(
    obstructions: Obstructions, store: HeldStore, guarded: Guarded
) -> None:
    other = Guarded(shards=[Shard("bills", 1)], patience=1.0)
    obstructions.guard(other)
    store.held = [STRANGER]
    await look(obstructions, 4)
    assert obstructions.of(other) == []
    assert len(obstructions.of(guarded)) == 1
    assert store.asked[-1] == [HERE, THERE, Shard("bills", 1)]


async def test_nothing_is_asked_where_nothing_is_wanted(
    obstructions: Obstructions, store: HeldStore, guarded: Guarded
) -> None:
    obstructions.forget(guarded)
    obstructions.forget(guarded)
    await look(obstructions)
    obstructions.guard(Guarded(shards=[HERE], patience=1.0, is_wanted=lambda: False))
    await look(obstructions)
    assert store.asked == []


async def test_while_the_database_is_down_nothing_is_asked(store: HeldStore, log: Lines, guarded: Guarded) -> None:
    database = Health("outbox database", log)
    obstructions = Obstructions(store, database, log)
    obstructions.guard(guarded)

    async def sleep(_seconds: float) -> None: ...

    obstructions.sleep = sleep  # type: ignore[method-assign]
    database.failed(Trouble("down"))
    await obstructions.run_once()
    assert store.asked == []

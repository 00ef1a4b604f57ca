"""What a process knows of pauses, and when it reads them."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest

from faststream_outbox._engine import pauses as module
from faststream_outbox._engine.health import Health
from faststream_outbox._engine.pauses import PauseReader, Pauses
from faststream_outbox._engine.rounds import Rounds
from faststream_outbox._store.memory.controls import MemoryControls
from faststream_outbox._values.control import PausedKey, Scope, StoredPause
from tests.engine.fakes import Lines, until


class Controls(MemoryControls):
    """Counts reads, fails if told so, and lets something happen in the middle of a read."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.reads = 0
        self.error: Exception | None = None
        self.hangs = False
        self.is_there = True
        self.meanwhile = lambda: None

    async def pauses(self) -> Sequence[StoredPause] | None:
        self.reads += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        found = await super().pauses()
        self.meanwhile()
        return found if self.is_there else None


@pytest.fixture
def controls() -> Controls:
    return Controls()


@pytest.fixture
def pauses() -> Pauses:
    return Pauses(is_known=False)


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
async def reader(controls: Controls, pauses: Pauses, lines: Lines) -> AsyncIterator[PauseReader]:
    reader = PauseReader(controls, pauses, hears=lambda: True, health=Health("controls", lines), log=lines)
    yield reader
    await reader.stop()


async def stored(*scopes: Scope) -> Sequence[StoredPause]:
    controls = MemoryControls(lambda: None)
    for scope in scopes:
        await controls.pause(scope, who="alice", why=None, until=None)
    return await controls.pauses() or ()


async def test_until_they_are_read_everything_counts_as_paused(pauses: Pauses) -> None:
    rounds = Rounds(["a", "b"], 2, pauses=pauses)
    assert (rounds.is_paused, rounds.next(), pauses.has_forwarder("f")) == (True, [], True)
    pauses.set(await stored(Scope(queue="a"), Scope(forwarder="g")))
    assert not rounds.is_paused
    assert {shard.queue for shard in rounds.next()} == {"b"}
    assert (pauses.has_forwarder("f"), pauses.has_forwarder("g")) == (False, True)
    pauses.set(await stored(Scope(queue="a"), Scope(queue="b")))
    assert rounds.is_paused


async def test_a_paused_key_pauses_no_queue(pauses: Pauses) -> None:
    pauses.set(await stored(Scope(queue="a", key="k"), Scope(key="l")))
    assert not pauses.has_queue("a")
    assert pauses.keys == [PausedKey("a", "k"), PausedKey(None, "l")]


async def test_which_pauses_concern_a_forwarder(pauses: Pauses) -> None:
    scopes = [Scope(queue="a"), Scope(queue="a", key="k"), Scope(key="l"), Scope(forwarder="f"), Scope(queue="b")]
    pauses.set(await stored(*scopes, Scope(forwarder="g")))
    assert [pause.scope for pause in pauses.of(["a"], "f")] == scopes[:4]


async def test_watchers_are_called_when_anything_begins_or_ends(pauses: Pauses) -> None:
    calls = []
    pauses.watch(watcher := lambda: calls.append(None))
    for count, scopes in enumerate([[], [Scope(queue="a")], [Scope(key="k")], [Scope(forwarder="f")], []], 1):
        for _ in range(2):
            pauses.set(await stored(*scopes))
        assert len(calls) == count
    pauses.forget(watcher)
    pauses.forget(watcher)
    pauses.set(await stored(Scope(queue="a")))
    assert len(calls) == 5


async def test_they_are_read_at_the_start_and_when_it_rings(
    controls: Controls, pauses: Pauses, reader: PauseReader
) -> None:
    reader.start()
    await until(lambda: pauses.is_known)
    await controls.pause(Scope(queue="a"), who="alice", why=None, until=None)
    await asyncio.sleep(0.05)
    assert (controls.reads, pauses.has_queue("a")) == (1, False)
    reader.ring()
    await until(lambda: pauses.has_queue("a"))


async def test_what_rings_during_a_read_is_read_again(controls: Controls, pauses: Pauses, reader: PauseReader) -> None:
    reader.start()
    await until(lambda: pauses.is_known)
    controls.meanwhile = lambda: reader.ring() if controls.reads == 2 else None
    reader.ring()
    await until(lambda: controls.reads == 3)
    await asyncio.sleep(0.05)
    assert controls.reads == 3


async def test_a_pause_ends_without_a_bell(
    controls: Controls, pauses: Pauses, reader: PauseReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OVERDUE_SECONDS", 600.0)
    await controls.pause(Scope(queue="a"), who="alice", why=None, until=timedelta(seconds=0.2))
    reader.start()
    await until(lambda: pauses.has_queue("a") and pauses.is_known)
    await until(lambda: not pauses.has_queue("a"), seconds=2.0)


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_pause_ends_by_this_clock_where_the_table_cannot_be_read(
    controls: Controls, pauses: Pauses, reader: PauseReader, monkeypatch: pytest.MonkeyPatch, *, hangs: bool
) -> None:
    monkeypatch.setattr(module, "OVERDUE_SECONDS", 0.1)
    calls = []
    pauses.watch(lambda: calls.append(None))
    for queue, seconds in [("a", 0.2), ("b", 0.5), ("c", 600), ("d", None)]:
        until_then = None if seconds is None else timedelta(seconds=seconds)
        await controls.pause(Scope(queue=queue), who="alice", why=None, until=until_then)
    reader.start()
    await until(lambda: pauses.is_known)
    controls.error, controls.hangs = ConnectionError("away"), hangs
    reader.ring()
    assert [pauses.has_queue(queue) for queue in "abcd"] == [True] * 4
    await until(lambda: not pauses.has_queue("a"), seconds=2.0)
    await until(lambda: not pauses.has_queue("b"), seconds=2.0)
    assert [pauses.has_queue(queue) for queue in "cd"] == [True] * 2
    assert [pause.scope.queue for pause in pauses.all] == ["c", "d"]
    assert len(calls) == 3


async def test_where_notifications_are_heard_it_is_read_once_a_minute(
    controls: Controls, reader: PauseReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, ahead = asyncio.get_running_loop(), 0.0
    monkeypatch.setattr(loop, "time", lambda: time.monotonic() + ahead)
    reader.start()
    await until(lambda: controls.reads == 1)
    for ahead in (20.0, 50.0):  # noqa: B007 - the loop's clock reads it
        await asyncio.sleep(0.02)
    assert controls.reads == 1
    ahead = 61.0
    await until(lambda: controls.reads == 2)


async def test_where_nothing_is_paused_no_shard_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = Pauses()
    rounds = Rounds(["a", "b"], 16, pauses=pauses)
    asked: list[str] = []
    monkeypatch.setattr(pauses, "has_queue", lambda queue: bool(asked.append(queue)))
    pauses.set(await stored(Scope(queue="a", key="k"), Scope(forwarder="f")))
    assert len(rounds.next()) == 32
    assert asked == []
    pauses.set(await stored(Scope(queue="c")))
    assert len(rounds.next()) == len(asked) == 32


async def test_what_cannot_be_read_leaves_what_was_read(
    controls: Controls, pauses: Pauses, reader: PauseReader, lines: Lines
) -> None:
    controls.error = ConnectionError("away")
    reader.start()
    await until(lambda: controls.reads == 2)
    assert not pauses.is_known
    controls.error = None
    await controls.pause(Scope(queue="a"), who="alice", why=None, until=None)
    await until(lambda: pauses.is_known)
    controls.error = ConnectionError("away")
    reader.ring()
    await until(lambda: len(lines.errors) == 2)
    assert pauses.has_queue("a")
    assert not pauses.has_queue("b")


async def test_a_table_that_is_not_there_pauses_nothing_and_is_named_once(
    controls: Controls, pauses: Pauses, reader: PauseReader, lines: Lines
) -> None:
    controls.is_there = False
    reader.start()
    await until(lambda: pauses.is_known)
    reader.ring()
    await until(lambda: controls.reads == 2)
    assert len(lines.warnings) == 1
    assert not pauses.has_queue("a")

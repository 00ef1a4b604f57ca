"""What a process knows of pauses, and when it reads them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest

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
        self.is_there = True
        self.meanwhile = lambda: None

    async def pauses(self) -> Sequence[StoredPause] | None:
        self.reads += 1
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


async def test_a_pause_ends_without_a_bell(controls: Controls, pauses: Pauses, reader: PauseReader) -> None:
    await controls.pause(Scope(queue="a"), who="alice", why=None, until=timedelta(seconds=0.2))
    reader.start()
    await until(lambda: pauses.has_queue("a") and pauses.is_known)
    await until(lambda: not pauses.has_queue("a"), seconds=2.0)


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

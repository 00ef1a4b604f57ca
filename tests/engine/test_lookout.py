"""One look for all loops that rest: when it is made, for whom, and what happens where it fails."""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack

import pytest

from faststream_outbox._engine import lookout as lookout_module
from faststream_outbox._engine.health import Health
from faststream_outbox._engine.lookout import Lookout, together
from faststream_outbox._store.protocol import Outlook
from tests.engine.fakes import Lines, ScriptedStore, Trouble, until


class Sleeping:
    """A loop at rest that notes what it hears."""

    def __init__(self, *queues: str, within: float = 0.0, from_: float = 0.0) -> None:
        self.queues: Sequence[str] = queues or ("orders",)
        now = time.monotonic()
        self.look_from, self.look_at = now + from_, now + within
        self.heard_of: list[Outlook | None] = []

    def heard(self, outlook: Outlook) -> None:
        self._note(outlook)

    def unheard(self) -> None:
        self._note(None)

    def _note(self, outlook: Outlook | None) -> None:
        self.heard_of.append(outlook)
        self.look_from = self.look_at = math.inf


@pytest.fixture
async def lookout(store: ScriptedStore, log: Lines) -> AsyncIterator[Lookout]:
    lookout = Lookout(store, Health("database", log))
    lookout.start()
    yield lookout
    await store.script.let_go("outlook")
    await lookout.stop()


async def test_many_rest_for_the_price_of_one(lookout: Lookout, store: ScriptedStore) -> None:
    sleepers = [Sleeping(f"queue-{number}") for number in range(50)]
    store.publish("queue-7")
    with ExitStack() as stack:
        for sleeper in sleepers:
            stack.enter_context(lookout.beside(sleeper))
        await until(lambda: all(sleeper.heard_of for sleeper in sleepers))
    assert store.script.calls["outlook"] == 1
    assert [number for number, each in enumerate(sleepers) if each.heard_of == [Outlook(is_ready=True)]] == [7]
    assert sleepers[0].heard_of == [Outlook()]


async def test_a_look_is_for_all_that_can_do_with_it(lookout: Lookout, store: ScriptedStore) -> None:
    first, early, late = Sleeping(), Sleeping(within=60.0), Sleeping(within=60.0, from_=30.0)
    with lookout.beside(late), lookout.beside(early), lookout.beside(first):
        await until(lambda: first.heard_of and early.heard_of)
        await asyncio.sleep(0.02)
        assert not late.heard_of
    assert store.script.calls["outlook"] == 1


async def test_who_wants_a_look_sooner_gets_it(lookout: Lookout) -> None:
    late, soon = Sleeping(within=60.0, from_=60.0), Sleeping(within=0.02)
    with lookout.beside(late):
        await asyncio.sleep(0.01)
        with lookout.beside(soon):
            await until(lambda: soon.heard_of)


async def test_without_sleepers_nothing_is_asked(lookout: Lookout, store: ScriptedStore) -> None:
    with lookout.beside(Sleeping(within=0.01)):
        pass
    await asyncio.sleep(0.03)
    assert store.script.calls["outlook"] == 0


async def test_nothing_is_asked_for_who_takes_from_no_queue_now(lookout: Lookout, store: ScriptedStore) -> None:
    sleeper = Sleeping()
    sleeper.queues = ()
    with lookout.beside(sleeper):
        await until(lambda: sleeper.heard_of)
    assert sleeper.heard_of == [Outlook()]
    assert store.script.calls["outlook"] == 0


async def test_an_answer_is_for_the_rest_that_it_was_asked_for(lookout: Lookout, store: ScriptedStore) -> None:
    """The loop may have worked since, and what it has left waiting is not in that answer."""
    sleeper = Sleeping()
    store.script.hanging.add("outlook")
    with lookout.beside(sleeper):
        await until(lambda: store.script.calls["outlook"])
    sleeper.look_from = sleeper.look_at = math.inf
    with lookout.beside(sleeper):
        await store.script.let_go("outlook")
        await asyncio.sleep(0.02)
        assert not sleeper.heard_of


async def test_where_a_look_fails_each_loop_looks_itself(lookout: Lookout, store: ScriptedStore, log: Lines) -> None:
    first, second, late = Sleeping(), Sleeping(), Sleeping(within=60.0, from_=60.0)
    store.script.next_failures["outlook"] = deque([Trouble("no database")])
    with lookout.beside(first), lookout.beside(second), lookout.beside(late):
        await until(lambda: first.heard_of and second.heard_of)
        assert (first.heard_of, second.heard_of, late.heard_of) == ([None], [None], [])
        again = Sleeping()
        with lookout.beside(again):
            await until(lambda: again.heard_of)
        assert again.heard_of == [Outlook()]
    assert len(log.errors) == len(log.recoveries) == 1


async def test_a_store_that_does_not_answer_is_given_up(
    lookout: Lookout, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout_module, "DATABASE_SECONDS", 0.01)
    store.script.hanging.add("outlook")
    sleeper = Sleeping()
    with lookout.beside(sleeper):
        await until(lambda: sleeper.heard_of)
    assert sleeper.heard_of == [None]


def test_of_several_queues_the_first_time_counts() -> None:
    outlooks = [Outlook(seconds=3.0), Outlook(is_ready=True), Outlook(seconds=-1.0)]
    assert together(outlooks) == Outlook(is_ready=True, seconds=-1.0)
    assert together([]) == Outlook()

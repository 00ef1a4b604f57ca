"""Pauses that are stored, and the audit log."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta

import pytest

from faststream_outbox._store.controls import ControlStore
from faststream_outbox._store.protocol import Listener, PausesChanged
from faststream_outbox._values.control import Scope
from faststream_outbox.exceptions import ConfigError

ORDERS = Scope(queue="orders")
KEY = Scope(queue="orders", key="k \"1'")
HOUR = timedelta(hours=1)

Open = Callable[[], AbstractAsyncContextManager[Listener | None]]


async def scopes(controls: ControlStore) -> list[Scope]:
    return [pause.scope for pause in await controls.pauses() or ()]


class Controls:
    async def test_what_is_paused_is_told_until_it_is_resumed(self, controls: ControlStore) -> None:
        assert await controls.pauses() == []
        before = datetime.now(UTC) - timedelta(seconds=5)
        for scope in (ORDERS, KEY, Scope(key="k"), Scope(forwarder="f")):
            said = await controls.pause(scope, who="alice", why="a bad deploy", until=None)
            assert (said.scope, said.who, said.why, said.until) == (scope, "alice", "a bad deploy", None)
            assert before < said.since < before + timedelta(minutes=1)
            assert (await controls.pauses() or ())[-1] == said
        assert await scopes(controls) == [ORDERS, KEY, Scope(key="k"), Scope(forwarder="f")]
        assert await controls.resume(KEY, who="bob", why=None) == 1
        assert await scopes(controls) == [ORDERS, Scope(key="k"), Scope(forwarder="f")]
        assert await controls.resume(KEY, who="bob", why=None) == 0
        assert await controls.resume(Scope(key="orders"), who="bob", why=None) == 0

    async def test_the_last_word_counts(self, controls: ControlStore) -> None:
        await controls.pause(ORDERS, who="alice", why="first", until=HOUR)
        await controls.pause(ORDERS, who="bob", why="second", until=None)
        [pause] = await controls.pauses() or ()
        assert (pause.who, pause.why, pause.until) == ("bob", "second", None)
        assert await controls.resume(ORDERS, who="bob", why=None) == 1
        assert await scopes(controls) == []

    async def test_a_pause_ends_by_itself(self, controls: ControlStore) -> None:
        said = await controls.pause(ORDERS, who="alice", why=None, until=timedelta(seconds=0.2))
        assert said.seconds_left is not None
        assert 0.0 < said.seconds_left <= 0.2
        [pause] = await controls.pauses() or ()
        assert pause.until == said.until
        assert pause.seconds_left is not None
        await asyncio.sleep(0.25)
        assert await scopes(controls) == []
        assert await controls.resume(ORDERS, who="alice", why=None) == 0
        at = datetime.now(UTC) + HOUR
        assert (await controls.pause(ORDERS, who="alice", why=None, until=at)).until == at

    @pytest.mark.parametrize("until", [timedelta(0), -HOUR, datetime(2020, 1, 1, tzinfo=UTC)])
    async def test_a_time_that_has_passed_changes_nothing(
        self, controls: ControlStore, until: datetime | timedelta
    ) -> None:
        await controls.pause(ORDERS, who="alice", why=None, until=None)
        with pytest.raises(ConfigError, match=r"^until: .* has passed"):
            await controls.pause(ORDERS, who="bob", why=None, until=until)
        [pause] = await controls.pauses() or ()
        assert pause.who == "alice"

    async def test_the_log_has_who_did_what_the_last_first(self, controls: ControlStore) -> None:
        await controls.pause(ORDERS, who="alice", why="a", until=None)
        await controls.pause(KEY, who="bob", why=None, until=HOUR)
        await controls.resume(ORDERS, who="carol", why="c")
        resume, key, orders = await controls.audit(limit=9, before=None, action=None)
        assert [(each.who, each.action, each.what, each.why, each.affected) for each in (resume, key, orders)] == [
            ("carol", "resume", {"queue": "orders"}, "c", 1),
            ("bob", "pause", {"queue": "orders", "key": "k \"1'"}, None, 0),
            ("alice", "pause", {"queue": "orders"}, "a", 0),
        ]
        assert orders.ended_at is not None
        assert orders.at <= orders.ended_at <= datetime.now(UTC) + timedelta(seconds=5)
        assert (key.ended_at, resume.until) == (None, None)
        assert key.until is not None
        assert await controls.audit(limit=1, before=resume.id, action=None) == [key]
        assert await controls.audit(limit=9, before=None, action="resume") == [resume]

    async def test_who_listens_hears_of_it(self, controls: ControlStore, listening: Open) -> None:
        async with listening() as line, asyncio.timeout(20):
            assert line is not None
            heard = aiter(line)
            await controls.pause(ORDERS, who="alice", why=None, until=None)
            assert isinstance(await anext(heard), PausesChanged)
            await controls.resume(ORDERS, who="alice", why=None)
            assert isinstance(await anext(heard), PausesChanged)
            await controls.resume(ORDERS, who="alice", why=None)
            await controls.pause(KEY, who="alice", why=None, until=None)
            assert isinstance(await anext(heard), PausesChanged)

"""The line for wake-ups: it comes back by itself, and the process's name hangs on it."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from faststream_outbox._engine import receiver as receiver_module
from faststream_outbox._engine.backoff import Backoff
from faststream_outbox._engine.handling.leases import Leases
from faststream_outbox._engine.health import Health
from faststream_outbox._engine.receiver import STEADY_SECONDS, Receiver
from faststream_outbox._engine.wakeups import Wakeup, Wakeups
from faststream_outbox._store.protocol import PRESENCE_PREFIX
from tests.engine.fakes import Clock, Lines, ScriptedStore, Trouble, until


@pytest.fixture
async def leases() -> Leases:
    return Leases()


@pytest.fixture
async def wakeups() -> Wakeups:
    return Wakeups()


@pytest.fixture
async def bell(wakeups: Wakeups) -> Wakeup:
    return wakeups.register(["orders"])


@pytest.fixture
async def make(
    store: ScriptedStore, leases: Leases, wakeups: Wakeups, log: Lines
) -> AsyncIterator[Callable[..., Receiver]]:
    made = []

    def make(*, enabled: bool = True) -> Receiver:
        listening = Receiver(store, leases.token, wakeups, Health("line", log), log, enabled=enabled)
        listening._backoff = Backoff(0.001, 0.002)
        made.append(listening)
        return listening

    yield make
    for listening in made:
        await listening.stop()


async def test_what_is_heard_wakes_the_queue(
    make: Callable[..., Receiver], store: ScriptedStore, wakeups: Wakeups, bell: Wakeup
) -> None:
    other = wakeups.register(["mails"])
    make().start()
    await until(lambda: store.lines)
    await until(lambda: bell.is_rung)
    bell.clear()
    other.clear()
    store.lines[0].ring("orders")
    await until(lambda: bell.is_rung)
    assert not other.is_rung


async def test_a_broken_line_is_opened_again_under_the_same_token(
    make: Callable[..., Receiver], store: ScriptedStore, leases: Leases, bell: Wakeup, log: Lines
) -> None:
    make().start()
    for number in range(1, 4):
        await until(lambda: len(store.lines) == number and bell.is_rung)  # noqa: B023
        # What was published while no one listened has rung no bell: all were woken.
        bell.clear()
        store.lines[-1].break_off()
    await until(lambda: len(store.lines) == 4)
    assert {line.token for line in store.lines} == {leases.token.value}
    assert leases.token.value.startswith(PRESENCE_PREFIX)
    assert [line.is_open for line in store.lines] == [False, False, False, True]
    assert len(log.errors) == len(log.recoveries) == 3


async def test_it_says_whether_it_hears(make: Callable[..., Receiver], store: ScriptedStore) -> None:
    listening = make()
    assert not listening.hears
    listening.start()
    await until(lambda: listening.hears)
    store.script.failing["listen"] = Trouble("no")
    store.lines[0].break_off()
    await until(lambda: not listening.hears)
    store.script.failing.clear()
    await until(lambda: listening.hears)
    await listening.stop()
    assert not listening.hears


async def test_a_line_that_ends_without_an_error_is_a_failure_like_any_other(
    make: Callable[..., Receiver], store: ScriptedStore, log: Lines
) -> None:
    listening = make()
    listening.start()
    await until(lambda: store.lines)
    store.lines[0].end()
    await until(lambda: len(store.lines) == 2)
    assert len(log.errors) == 1
    assert listening._backoff._failures == 1


async def test_without_a_database_it_tries_with_a_growing_delay_and_says_so_once(
    make: Callable[..., Receiver], store: ScriptedStore, leases: Leases, log: Lines
) -> None:
    store.script.failing["listen"] = Trouble("no")
    listening = make()
    listening.start()
    await until(lambda: store.script.calls["listen"] >= 5)
    assert listening._backoff._failures >= 4
    assert leases.token.value == ""
    assert len(log.errors) == 1
    store.script.failing.clear()
    await until(lambda: leases.token.value)
    assert len(log.recoveries) == 1


async def test_a_silent_line_means_polling_under_a_token_without_presence(
    make: Callable[..., Receiver], store: ScriptedStore, leases: Leases, bell: Wakeup, log: Lines
) -> None:
    store.is_silent = True
    make().start()
    await until(lambda: leases.token.value)
    assert not leases.token.value.startswith(PRESENCE_PREFIX)
    assert bell.is_rung
    assert len(log.warnings) == 1
    assert store.script.calls["listen"] == 1


async def test_a_line_that_falls_silent_later_is_a_failure_and_the_token_stays(
    make: Callable[..., Receiver], store: ScriptedStore, leases: Leases, log: Lines
) -> None:
    make().start()
    await until(lambda: leases.token.value)
    token = leases.token.value
    store.is_silent = True
    store.lines[0].break_off()
    await until(lambda: store.script.calls["listen"] >= 4)
    assert leases.token.value == token
    assert log.warnings == []
    store.is_silent = False
    await until(lambda: len(store.lines) == 2)
    assert store.lines[1].token == token


async def test_without_listening_the_store_is_left_alone(
    make: Callable[..., Receiver], store: ScriptedStore, leases: Leases, bell: Wakeup
) -> None:
    listening = make(enabled=False)
    listening.start()
    await until(lambda: leases.token.value)
    assert not leases.token.value.startswith(PRESENCE_PREFIX)
    assert bell.is_rung
    assert listening.is_steady()
    assert not listening.hears
    await listening.stop()
    assert store.script.calls.total() == 0


async def test_two_processes_have_two_names(make: Callable[..., Receiver]) -> None:
    assert make()._holder != make()._holder


async def test_a_restart_keeps_the_name(make: Callable[..., Receiver], store: ScriptedStore, leases: Leases) -> None:
    listening = make()
    for count in (1, 2):
        listening.start()
        await until(lambda: len(store.lines) == count)  # noqa: B023
        await listening.stop()
        assert not store.lines[-1].is_open
    assert store.lines[0].token == store.lines[1].token == leases.token.value


async def test_only_connecting_has_a_time_limit(
    make: Callable[..., Receiver], store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_module, "DATABASE_SECONDS", 0.01)
    make().start()
    await until(lambda: store.lines)
    await asyncio.sleep(0.03)
    assert store.lines[0].is_open


async def test_after_an_outage_others_get_time_to_come_back(
    make: Callable[..., Receiver], store: ScriptedStore, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(receiver_module, "time", clock)
    listening = make()
    assert listening.is_steady()
    listening.start()
    await until(lambda: store.lines)
    assert listening.is_steady()
    store.script.failing["listen"] = Trouble("no")
    store.lines[0].break_off()
    await until(lambda: store.script.calls["listen"] == 3)
    clock.now += 1000
    assert not listening.is_steady()
    store.script.failing.clear()
    await until(lambda: len(store.lines) == 2)
    await until(lambda: not listening.health.is_down)
    assert not listening.is_steady()
    clock.now += STEADY_SECONDS
    assert listening.is_steady()


async def test_a_stop_leaves_no_opinion_about_others(make: Callable[..., Receiver], store: ScriptedStore) -> None:
    listening = make()
    listening.start()
    await until(lambda: store.lines)
    await listening.stop()
    assert listening.is_steady()


async def test_all_are_woken_when_the_line_breaks_and_again_when_it_is_back(
    make: Callable[..., Receiver], store: ScriptedStore, bell: Wakeup
) -> None:
    make().start()
    await until(lambda: store.lines)
    await until(lambda: bell.is_rung)
    bell.clear()
    store.script.hanging.add("listen")
    store.lines[0].break_off()
    # What was committed since it broke has rung no bell.
    await until(lambda: bell.is_rung)
    await until(lambda: store.script.calls["listen"] == 2)
    bell.clear()
    await store.script.let_go("listen")
    # What was committed while there was none has not either.
    await until(lambda: bell.is_rung)

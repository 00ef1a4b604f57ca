"""What a reload does when something fails. No server is asked: none has to be up."""

import logging
from typing import Any

import pytest

from faststream_outbox.broker.broker import OutboxBroker
from faststream_outbox.relay.relay import Relay

from .conftest import Write

LOG = logging.getLogger("test")


def database(name: str, more: str = "") -> str:
    return (
        f"[databases.{name}]\nurl = 'postgresql://relay@127.0.0.1:1/{name}'\n[[databases.{name}.forwarders]]\n"
        f"queues = 'a'\nto = 'redis://127.0.0.1:1'\nstream = 'a'\n{more}\n"
    )


def names(relay: Relay) -> list[str]:
    return [each.name for each in relay.databases if each.broker.running]


async def test_more_databases_than_the_running_bound_has_room_for(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    relay = Relay(write("[connections]\nmost = 3\n" + database("one")), LOG)
    await relay.start()
    try:
        more = "".join(database(f"more{number}") for number in range(4))
        write("[connections]\nmost = 30\n" + database("one") + more)
        assert not await relay.reload()
        assert names(relay) == ["one"]
        assert "[connections] has changed, and needs a restart" in caplog.text
        assert "connections.most: must be at least 6" in caplog.text
        assert "goes on as before" in caplog.text
    finally:
        await relay.stop()


@pytest.mark.parametrize("what", ["load", "_make"])
async def test_whatever_fails_while_it_reads_changes_nothing(
    write: Write, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    relay = Relay(write(database("one")), LOG)

    def fail(*_: Any) -> Any:
        raise KeyError("s3cr3t")

    await relay.start()
    try:
        if what == "load":
            monkeypatch.setattr("faststream_outbox.relay.relay.load", fail)
        else:
            monkeypatch.setattr(relay, what, fail)
        assert not await relay.reload()
        assert names(relay) == ["one"]
        assert "cannot be used: KeyError" in caplog.text
        assert "goes on as before" in caplog.text
        assert "s3cr3t" not in caplog.text
    finally:
        await relay.stop()


async def test_a_database_that_fails_keeps_no_other(
    write: Write, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither at its stop nor at its start; the next reload starts it."""
    relay = Relay(write(database("one") + database("two")), LOG)
    await relay.start()
    failing = {each.broker for each in relay.databases if each.name == "one"}
    start, stop = OutboxBroker.start, OutboxBroker.stop
    are_started_badly = True

    async def stop_badly(self: OutboxBroker, *_: Any) -> None:
        await stop(self)
        if self in failing:
            raise OSError("no stop")

    async def start_badly(self: OutboxBroker) -> None:
        if are_started_badly and self.forwarders[0].queues == ["b"]:
            raise OSError("no start")
        await start(self)

    monkeypatch.setattr(OutboxBroker, "stop", stop_badly)
    monkeypatch.setattr(OutboxBroker, "start", start_badly)
    try:
        write((database("one") + database("two", "lanes = 1")).replace("'a'", "'b'", 1) + database("three"))
        assert await relay.reload()
        assert names(relay) == ["two", "three"]
        assert "[one] did not stop cleanly: what was in flight may be sent again" in caplog.text
        assert "[one] could not be started, and nothing is carried from it; send SIGHUP" in caplog.text
        are_started_badly = False
        assert await relay.reload()
        assert names(relay) == ["one", "two", "three"]
    finally:
        await relay.stop()

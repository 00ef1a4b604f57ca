"""Who connects a FastStream broker, and who closes it."""

import asyncio
from typing import Any

import pytest

from faststream_outbox._values.outcome import Accepted, Unsent
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.any_broker import link as module
from faststream_outbox.forwarders.any_broker.destination import PublisherDestination
from faststream_outbox.forwarders.any_broker.link import Link
from faststream_outbox.forwarders.any_broker.outlet import Outlet

from .rows import parcel


class FakeBroker:
    """What a link needs of a FastStream broker."""

    def __init__(self) -> None:
        self._connection: object | None = None
        self.running = False
        self.answers = True
        self.may_connect = asyncio.Event()
        self.may_connect.set()
        self.log: list[str] = []

    async def connect(self) -> None:
        self.log.append("connect")
        await self.may_connect.wait()
        self._connection = object()

    async def ping(self, timeout: float | None) -> bool:
        return self.answers

    async def stop(self) -> None:
        self.log.append("stop")
        self._connection = None


class FakeOutlet(Outlet):
    def __init__(self, broker: FakeBroker) -> None:
        self.broker: Any = broker
        self.cuts = 0
        self.hangs = False

    async def publish(self, parcel: Parcel) -> None:
        if self.hangs:
            await asyncio.Event().wait()

    async def stop(self, *, cut: bool) -> None:
        self.cuts += cut
        await super().stop(cut=cut)


@pytest.fixture
async def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def outlet(broker: FakeBroker) -> FakeOutlet:
    return FakeOutlet(broker)


def test_there_is_one_link_to_a_broker(outlet: FakeOutlet, broker: FakeBroker) -> None:
    link = Link.to(outlet)
    assert Link.to(FakeOutlet(broker)) is link
    assert Link.to(FakeOutlet(FakeBroker())) is not link


async def test_what_it_has_connected_it_closes_when_the_last_one_leaves(outlet: FakeOutlet, broker: FakeBroker) -> None:
    link = Link.to(outlet)
    await asyncio.gather(link.connect(1), link.connect(2))
    await link.connect(1)
    assert broker.log == ["connect"]
    await link.leave(1)
    assert broker.log == ["connect"]
    await link.leave(2)
    assert broker.log == ["connect", "stop"]
    assert outlet.cuts == 0


async def test_what_the_application_has_connected_stays_open(outlet: FakeOutlet, broker: FakeBroker) -> None:
    await broker.connect()
    link = Link.to(outlet)
    await link.connect(1)
    await link.cut()
    await link.leave(1)
    assert broker.log == ["connect"]


async def test_what_the_application_starts_later_stays_open(outlet: FakeOutlet, broker: FakeBroker) -> None:
    link = Link.to(outlet)
    await link.connect(1)
    broker.running = True
    await link.leave(1)
    assert broker.log == ["connect"]


async def test_a_broker_that_the_application_has_stopped_is_connected_again(
    outlet: FakeOutlet, broker: FakeBroker
) -> None:
    await broker.connect()
    link = Link.to(outlet)
    await link.connect(1)
    await broker.stop()
    await link.connect(1)
    await link.leave(1)
    assert broker.log == ["connect", "stop", "connect", "stop"]


async def test_one_that_does_not_answer_is_connected_anew(outlet: FakeOutlet, broker: FakeBroker) -> None:
    link = Link.to(outlet)
    broker.answers = False
    with pytest.raises(ConnectionError, match="does not answer"):
        await link.connect(1)
    assert broker._connection is None
    broker.answers = True
    await link.connect(1)
    assert broker.log == ["connect", "stop", "connect"]


async def test_an_attempt_to_connect_goes_on_between_calls_and_ends_with_the_last_user(
    outlet: FakeOutlet, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.01)
    link = Link.to(outlet)
    broker.may_connect.clear()
    for _ in range(2):
        with pytest.raises(ConnectionError, match="no connection yet"):
            await link.connect(1)
    assert broker.log == ["connect"]
    broker.may_connect.set()
    await link.connect(1)
    assert broker.log == ["connect"]
    await link.leave(1)
    broker.may_connect.clear()
    with pytest.raises(ConnectionError):
        await link.connect(1)
    before = asyncio.all_tasks()
    await link.leave(1)
    assert len(before - asyncio.all_tasks()) == 1


async def test_an_attempt_that_succeeds_when_nobody_needs_it_any_more_is_closed_like_others(
    outlet: FakeOutlet, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled, it could leave its socket behind."""
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.01)
    link = Link.to(outlet)
    broker.may_connect.clear()
    with pytest.raises(ConnectionError):
        await link.connect(1)
    asyncio.get_running_loop().call_later(0.02, broker.may_connect.set)
    await link.leave(1)
    assert broker.log == ["connect", "stop"]
    assert broker._connection is None


async def test_an_attempt_that_fails_when_nobody_needs_it_any_more_is_forgotten(
    outlet: FakeOutlet, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        await broker.may_connect.wait()
        raise OSError("refused")

    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.01)
    broker.connect = fail  # type: ignore[method-assign]
    broker.may_connect.clear()
    link = Link.to(outlet)
    with pytest.raises(ConnectionError):
        await link.connect(1)
    asyncio.get_running_loop().call_later(0.02, broker.may_connect.set)
    await link.leave(1)
    assert broker.log == []


async def test_a_stop_that_fails_is_forgotten(outlet: FakeOutlet, broker: FakeBroker) -> None:
    async def fail() -> None:
        raise RuntimeError("already closed")

    link = Link.to(outlet)
    await link.connect(1)
    broker.stop = fail  # type: ignore[method-assign]
    await link.leave(1)
    assert broker._connection is None


async def test_a_hand_over_that_is_given_up_cuts_the_connection(outlet: FakeOutlet, broker: FakeBroker) -> None:
    destination = PublisherDestination(outlet, 0.05)
    await destination.connect()
    assert await destination.send([parcel(1), parcel(2)]) == [Accepted(), Accepted()]
    outlet.hangs = True
    verdicts = await destination.send([parcel(1)])
    assert isinstance(verdicts[0], Unsent)
    assert isinstance(verdicts[0].exception, TimeoutError)
    assert outlet.cuts == 1
    assert broker._connection is None
    await destination.close()

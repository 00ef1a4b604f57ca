"""The rows of one hand-over against a client that answers as the test says."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from aiormq import exceptions as amqp
from aiormq.abc import DeliveredMessage
from faststream.rabbit import RabbitBroker
from pamqp import commands as spec
from pamqp.header import ContentHeader

from faststream_outbox._values.outcome import Accepted, Poison, Refused, Verdict
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.forwarders.rabbit import sending as module
from faststream_outbox.forwarders.rabbit.properties import Properties
from faststream_outbox.forwarders.rabbit.sending import Sending
from faststream_outbox.forwarders.rabbit.settings import RabbitSettings
from faststream_outbox.forwarders.rabbit.suspects import Suspects
from faststream_outbox.forwarders.rabbit.verdicts import BlockedError, Meaning
from tests.forwarders.rabbit.rows import row

SETTINGS = RabbitSettings.of(RabbitBroker(logger=None).publisher("q"))
Answer = Callable[[bytes], BaseException | None]


class FakeClient:
    """Takes messages and answers a turn of the loop later."""

    def __init__(self, answer: Answer = lambda _: None, *, max_frame_size: int = 131072) -> None:
        self.answer = answer
        self.max_frame_size = max_frame_size
        self.blocked = False
        self.log: list[tuple[str, bytes]] = []
        self.in_flight = 0
        self.most_in_flight = 0

    async def is_blocked(self) -> bool:
        return self.blocked

    async def publish(self, body: bytes, properties: Properties) -> None:
        self.log.append(("sent", body))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            if self.blocked:
                await asyncio.Event().wait()
            if (error := self.answer(body)) is not None:
                raise error
            self.log.append(("taken", body))
        finally:
            self.in_flight -= 1

    @property
    def taken(self) -> list[bytes]:
        return [body for what, body in self.log if what == "taken"]


def rows(*keys: str | None, **of_all: Any) -> list[OutboxRow]:
    return [
        row(id=number, key=key, idempotency_key=f"i{number}", payload=b"%d" % number, **of_all)
        for number, key in enumerate(keys)
    ]


def returned() -> BaseException:
    frame = spec.Basic.Return(312, "NO_ROUTE", "", "q")
    return amqp.PublishError(DeliveredMessage(frame, ContentHeader(), b"", None), frame)  # type: ignore[arg-type]


async def send(
    client: FakeClient, its_rows: Sequence[OutboxRow], suspects: Suspects | None = None
) -> tuple[Sending, dict[int, Verdict]]:
    verdicts: dict[int, Verdict] = {}
    sending = Sending(client, SETTINGS, suspects or Suspects(), verdicts)
    await sending.send(its_rows)
    return sending, verdicts


async def test_one_row_of_a_key_in_flight_and_all_keys_at_once() -> None:
    client = FakeClient()
    _, verdicts = await send(client, rows("a", "b", "a", None, None, "b", "a"))
    assert set(verdicts.values()) == {Accepted()}
    assert client.most_in_flight == 4
    for chain in ([b"0", b"2", b"6"], [b"1", b"5"]):
        mine = [entry for entry in client.log if entry[1] in chain]
        assert mine == [(what, body) for body in chain for what in ("sent", "taken")]


async def test_not_too_many_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_IN_FLIGHT", 5)
    client = FakeClient()
    await send(client, rows(*[None] * 50))
    assert client.most_in_flight == 5
    assert len(client.taken) == 50


async def test_a_refused_row_holds_its_key() -> None:
    client = FakeClient(lambda body: returned() if body == b"1" else None)
    sending, verdicts = await send(client, rows("a", "a", "a", "b"))
    assert isinstance(verdicts[1], Refused)
    assert 2 not in verdicts
    assert sorted(client.taken) == [b"0", b"3"]
    assert sending.trouble is None


async def test_what_cannot_be_encoded_is_poison_and_its_key_goes_on() -> None:
    its_rows = rows("a", "a", "a")
    its_rows[1] = row(id=1, key="a", idempotency_key="i1", headers={"x" * 300: ""})
    _, verdicts = await send(FakeClient(), its_rows)
    assert isinstance(verdicts[1], Poison)
    assert verdicts[0] == verdicts[2] == Accepted()


async def test_headers_beyond_the_frame_limit_are_not_sent() -> None:
    client = FakeClient(max_frame_size=4096)
    _, verdicts = await send(client, rows("a", headers={"x": "y" * 5000}))
    assert isinstance(verdicts[0], Poison)
    assert verdicts[0].reason == "too_large"
    assert not client.log
    await send(no_limit := FakeClient(max_frame_size=0), rows("a", headers={"x": "y" * 5000}))
    assert no_limit.taken


async def test_when_the_channel_is_closed_those_in_flight_are_known() -> None:
    error = amqp.ChannelPreconditionFailed("PRECONDITION_FAILED - message size 9 is larger")
    client = FakeClient(lambda body: error if body in (b"0", b"1") else None)
    sending, verdicts = await send(client, rows("a", "b", "a"))
    assert (sending.trouble, sending.meaning, sending.in_flight) == (error, Meaning.POISON_AMONG_THEM, {0, 1})
    assert not verdicts


async def test_the_reason_counts_and_not_that_the_channel_is_closed() -> None:
    reason = amqp.ChannelNotFoundEntity("NOT_FOUND")
    client = FakeClient(lambda body: amqp.ChannelInvalidStateError("closed") if body == b"0" else reason)
    sending, _ = await send(client, rows("a", "b"))
    assert (sending.trouble, sending.meaning, sending.in_flight) == (reason, Meaning.OUTAGE, {1})


async def test_suspects_are_sent_alone_and_last_and_poison_is_found() -> None:
    suspects = Suspects()
    suspects.accuse({1, 3}, ConnectionError(), certain=True)
    error = amqp.ChannelPreconditionFailed("PRECONDITION_FAILED - invalid message")
    client = FakeClient(lambda body: error if body == b"3" else None)
    _, verdicts = await send(client, rows("a", "b", "b", "c", "c"), suspects)
    assert client.log == [("sent", b"0"), ("taken", b"0"), ("sent", b"1"), ("taken", b"1"), ("sent", b"3")]
    assert verdicts == {0: Accepted(), 1: Accepted(), 3: Poison("invalid", error)}


async def test_a_row_that_broke_three_connections_is_not_sent() -> None:
    suspects, error = Suspects(), ConnectionError()
    for _ in range(3):
        suspects.accuse({0}, error)
    client = FakeClient()
    _, verdicts = await send(client, rows("a"), suspects)
    assert verdicts == {0: Poison("invalid", error)}
    assert not client.log


async def test_an_alarm_ends_a_hand_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    client = FakeClient()
    client.blocked = True
    sending, verdicts = await send(client, rows("a", "b"))
    assert isinstance(sending.trouble, BlockedError)
    assert sending.meaning is Meaning.OUTAGE
    assert not verdicts


async def test_an_idempotency_key_is_in_flight_once() -> None:
    its_rows = [row(id=number, key=key, payload=b"%d" % number) for number, key in enumerate((None, "a", "a", None))]
    its_rows[2] = row(id=2, key="a", idempotency_key="other")
    _, verdicts = await send(FakeClient(), its_rows)
    assert verdicts == {0: Accepted()}, "behind a row that waits, its key waits"


async def test_a_cancellation_of_the_clients_own_is_an_outage() -> None:
    sending, _ = await send(FakeClient(lambda _: asyncio.CancelledError()), rows("a"))
    assert isinstance(sending.trouble, ConnectionError)
    assert sending.meaning is Meaning.OUTAGE

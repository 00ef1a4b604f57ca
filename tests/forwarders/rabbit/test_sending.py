"""The rows of one hand-over against a client that answers as the test says."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from aiormq import exceptions as amqp
from aiormq.abc import DeliveredMessage
from faststream.rabbit import RabbitBroker, RabbitQueue, RabbitRouter
from pamqp import commands as spec
from pamqp.header import ContentHeader

from faststream_outbox._values.outcome import Accepted, Poison, Refused, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.forwarders import chains
from faststream_outbox.forwarders.outages import Outages
from faststream_outbox.forwarders.rabbit import sending as module
from faststream_outbox.forwarders.rabbit.properties import Properties
from faststream_outbox.forwarders.rabbit.sending import MessageSender
from faststream_outbox.forwarders.rabbit.settings import RabbitSettings
from faststream_outbox.forwarders.rabbit.verdicts import BlockedError, QueueOutageError
from faststream_outbox.forwarders.suspects import ConnectionBrokenError, OneOfThemError
from tests.forwarders.rabbit.rows import Clock, row

SETTINGS = RabbitSettings.of(RabbitBroker(logger=None).publisher("q"))
Answer = Callable[[bytes], BaseException | None]


class FakeClient:
    """Takes messages and answers a turn of the loop later."""

    def __init__(self, answer: Answer = lambda _: None, *, max_frame_size: int = 131072) -> None:
        self.answer = answer
        self.max_frame_size = max_frame_size
        self.blocked = False
        self.is_alive = True
        self.queues_down: set[str] = set()
        self.asked: list[str] = []
        self.routing_keys: list[str | None] = []
        self.log: list[tuple[str, bytes]] = []
        self.in_flight = 0
        self.most_in_flight = 0

    async def is_blocked(self) -> bool:
        return self.blocked

    async def publish(self, body: bytes, properties: Properties, routing_key: str | None) -> None:
        self.routing_keys.append(routing_key)
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

    async def is_node_down(self, queue: str) -> bool:
        self.asked.append(queue)
        await asyncio.sleep(0)
        return queue in self.queues_down

    @property
    def taken(self) -> list[bytes]:
        return [body for what, body in self.log if what == "taken"]


def nacked() -> BaseException:
    return amqp.DeliveryError(None, spec.Basic.Nack(1))


def rows(*keys: str | None, **of_all: Any) -> list[OutboxRow]:
    return [
        row(id=number, key=key, idempotency_key=f"i{number}", payload=b"%d" % number, **of_all)
        for number, key in enumerate(keys)
    ]


def returned() -> BaseException:
    frame = spec.Basic.Return(312, "NO_ROUTE", "", "q")
    return amqp.PublishError(DeliveredMessage(frame, ContentHeader(), b"", None), frame)  # type: ignore[arg-type]


async def send(
    client: FakeClient,
    its_rows: Sequence[OutboxRow],
    outages: Outages | None = None,
    settings: RabbitSettings = SETTINGS,
) -> tuple[MessageSender, dict[int, Verdict]]:
    verdicts: dict[int, Verdict] = {}
    sending = MessageSender(client, settings, Outages() if outages is None else outages, verdicts)
    await sending.send([Parcel(row) for row in its_rows])
    assert set(verdicts) == {row.id for row in its_rows}
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
    monkeypatch.setattr(chains, "MOST_IN_FLIGHT", 5)
    client = FakeClient()
    await send(client, rows(*[None] * 50))
    assert client.most_in_flight == 5
    assert len(client.taken) == 50


async def test_a_refused_row_holds_its_key() -> None:
    client = FakeClient(lambda body: returned() if body == b"1" else None)
    sending, verdicts = await send(client, rows("a", "a", "a", "b"))
    assert isinstance(verdicts[1], Refused)
    assert verdicts[2] == Unsent()
    assert sorted(client.taken) == [b"0", b"3"]
    assert sending.trouble is None


async def test_what_cannot_be_encoded_is_poison_and_its_key_goes_on() -> None:
    its_rows = rows("a", "a", "a")
    its_rows[1] = row(id=1, key="a", idempotency_key="i1", headers={"x" * 300: ""})
    _, verdicts = await send(FakeClient(), its_rows)
    assert isinstance(verdicts[1], Poison)
    assert verdicts[0] == verdicts[2] == Accepted()


@pytest.mark.parametrize("headers", [{"CC": "other"}, {"x": None}, {"x": 1e300}, {"content-type": 3}, [3]])
async def test_a_row_with_headers_that_cannot_be_sent_is_poison_and_its_neighbours_are_not_met(headers: Any) -> None:
    its_rows = rows("a", "a", None)
    its_rows[1] = its_rows[1]._replace(headers=headers)
    sending, verdicts = await send(client := FakeClient(), its_rows)
    poison = verdicts[1]
    assert isinstance(poison, Poison)
    assert poison.reason == "invalid"
    assert sending.trouble is None
    assert sorted(client.taken) == [b"0", b"2"]


async def test_headers_beyond_the_frame_limit_are_not_sent() -> None:
    client = FakeClient(max_frame_size=4096)
    _, verdicts = await send(client, rows("a", headers={"x": "y" * 5000}))
    assert isinstance(verdicts[0], Poison)
    assert verdicts[0].reason == "too_large"
    assert not client.log
    await send(no_limit := FakeClient(max_frame_size=0), rows("a", headers={"x": "y" * 5000}))
    assert no_limit.taken


async def test_when_the_channel_is_closed_over_one_of_them_those_in_flight_are_known() -> None:
    error = amqp.ChannelPreconditionFailed("PRECONDITION_FAILED - message size 9 is larger")
    client = FakeClient(lambda body: error if body in (b"0", b"1") else None)
    sending, verdicts = await send(client, rows("a", "b", "a"))
    assert sending.trouble == error
    for number in (0, 1):
        verdict = verdicts[number]
        assert isinstance(verdict, Unsent)
        assert isinstance(verdict.exception, OneOfThemError)
        assert verdict.exception.verdict == Poison("too_large", error)
    assert verdicts[2] == Unsent()


async def test_the_one_that_was_alone_in_flight_is_poison() -> None:
    error = amqp.ChannelPreconditionFailed("PRECONDITION_FAILED - invalid message")
    client = FakeClient(lambda body: error if body == b"1" else None)
    _, verdicts = await send(client, rows("a", "a", "a"))
    assert verdicts == {0: Accepted(), 1: Poison("invalid", error), 2: Unsent()}


async def test_when_the_connection_breaks_those_in_flight_are_known() -> None:
    client = FakeClient(lambda body: amqp.ConnectionInternalError("INTERNAL_ERROR"))
    _, verdicts = await send(client, rows("a", "b", "a"))
    broken = [number for number, v in verdicts.items() if isinstance(v, Unsent) and v.exception is not None]
    assert broken == [0, 1]
    assert all(
        isinstance(v.exception, ConnectionBrokenError | None) for v in verdicts.values() if isinstance(v, Unsent)
    )
    assert "INTERNAL_ERROR" in str(verdicts[0])


async def test_the_reason_counts_and_not_that_the_channel_is_closed() -> None:
    reason = amqp.ChannelNotFoundEntity("NOT_FOUND")
    client = FakeClient(lambda body: amqp.ChannelInvalidStateError("closed") if body == b"0" else reason)
    sending, verdicts = await send(client, rows("a", "b"))
    assert sending.trouble == reason
    assert verdicts == {0: Unsent(), 1: Unsent(reason)}


async def test_a_channel_that_was_closed_before_anything_was_sent_is_an_outage() -> None:
    error = amqp.ChannelInvalidStateError("closed")
    _, verdicts = await send(FakeClient(lambda _: error), rows("a"))
    assert verdicts == {0: Unsent(error)}


async def test_an_alarm_ends_a_hand_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    client = FakeClient()
    client.blocked = True
    sending, verdicts = await send(client, rows("a", "b"))
    assert isinstance(sending.trouble, BlockedError)
    assert verdicts == dict.fromkeys((0, 1), Unsent(sending.trouble))


async def test_a_connection_that_has_ended_without_a_word_ends_a_hand_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    client = FakeClient()
    client.blocked, client.is_alive = True, False
    sending, verdicts = await send(client, rows("a", "b", "a"))
    assert isinstance(sending.trouble, ConnectionError)
    assert not isinstance(sending.trouble, BlockedError), "an alarm of a connection that is gone means nothing"
    for number in (0, 1):
        verdict = verdicts[number]
        assert isinstance(verdict, Unsent)
        assert isinstance(verdict.exception, ConnectionBrokenError)
    assert verdicts[2] == Unsent()


async def test_an_idempotency_key_is_in_flight_once() -> None:
    its_rows = [row(id=number, key=key, payload=b"%d" % number) for number, key in enumerate((None, "a", "a", None))]
    its_rows[2] = row(id=2, key="a", idempotency_key="other")
    _, verdicts = await send(FakeClient(), its_rows)
    assert verdicts == {0: Accepted(), **dict.fromkeys((1, 2, 3), Unsent())}, "behind a row that waits, its key waits"


async def test_a_cancellation_of_the_clients_own_is_an_outage() -> None:
    sending, verdicts = await send(FakeClient(lambda _: asyncio.CancelledError()), rows("a"))
    assert isinstance(sending.trouble, ConnectionError)
    assert verdicts == {0: Unsent(sending.trouble)}


@pytest.mark.parametrize(("elsewhere", "verdict"), [(False, Unsent), (True, Refused)])
async def test_a_routing_key_that_is_not_permitted(elsewhere: bool, verdict: type[Verdict]) -> None:
    error = amqp.ChannelAccessRefused("ACCESS_REFUSED - access to topic 'k' in exchange 'x' refused for user 'u'")
    client, verdicts = FakeClient(lambda _: error), dict[int, Verdict]()
    [its_row] = rows("a")
    await MessageSender(client, SETTINGS, Outages(), verdicts).send([Parcel(its_row, "k" if elsewhere else None)])
    assert verdicts == {0: verdict(error)}
    assert client.routing_keys == ["k" if elsewhere else None]
    verdicts.clear()
    await MessageSender(client, SETTINGS, Outages(), verdicts).send(
        [Parcel(row, "k" if elsewhere else None) for row in rows("a", "b")]
    )
    blamed = [each.exception for each in verdicts.values() if isinstance(each, Unsent)]
    assert [isinstance(each, OneOfThemError) for each in blamed] == [elsewhere] * 2


# ------------------------------------------------------------------------------------------------------ a queue is down


async def test_a_nack_is_an_outage_of_its_routing_key_and_holds_its_key() -> None:
    client, outages = FakeClient(lambda body: nacked() if body in (b"1", b"4") else None), Outages()
    sending, verdicts = await send(client, rows("a", "a", "a", "b", None), outages)
    verdict = verdicts[1]
    assert isinstance(verdict, Unsent)
    assert isinstance(verdict.exception, QueueOutageError)
    assert verdict.part == "q"
    assert "basic.nack for 'q'" in str(verdict.exception)
    behind = verdicts[4]
    assert isinstance(behind, Unsent)
    assert behind.part == "q"
    assert verdicts[2] == Unsent(), "it waits behind the first of its key"
    assert sending.trouble is None, "the connection is fine"
    assert sorted(client.taken) == [b"0", b"3"]


async def test_nothing_more_is_sent_with_a_routing_key_that_is_down_and_everything_else_is(clock: Clock) -> None:
    client, outages = FakeClient(lambda _: nacked()), Outages()
    await send(client, rows("a"), outages)
    client.answer, client.log[:] = (lambda _: None), []
    verdicts: dict[int, Verdict] = {}
    parcels = [Parcel(row, "elsewhere" if row.id == 1 else None) for row in rows("a", "b", "c", "c")]
    await MessageSender(client, SETTINGS, outages, verdicts).send(parcels)
    assert client.taken == [b"1"]
    assert verdicts[1] == Accepted()
    for number in (0, 2):
        verdict = verdicts[number]
        assert isinstance(verdict, Unsent)
        assert (type(verdict.exception), verdict.part) == (QueueOutageError, "q")
    assert verdicts[3] == Unsent()


async def test_a_nack_counts_where_that_is_wanted() -> None:
    settings = replace(SETTINGS, count_nacks=True)
    client, outages = FakeClient(lambda body: nacked() if body == b"1" else None), Outages()
    _, verdicts = await send(client, rows("a", "a", "a", "b"), outages, settings)
    assert isinstance(verdicts[1], Refused)
    assert (verdicts[2], verdicts[3]) == (Unsent(), Accepted())
    assert not outages


async def test_a_message_that_no_queue_takes_is_refused_all_the_same() -> None:
    client, outages = FakeClient(lambda body: returned() if body == b"0" else None), Outages()
    _, verdicts = await send(client, rows("a", "b"), outages)
    assert isinstance(verdicts[0], Refused)
    assert not outages


async def test_of_one_routing_key_more_and_more_are_sent_after_one_was_taken(clock: Clock) -> None:
    """What a queue has no room for is not tried by all at once."""
    outages = Outages()
    await send(FakeClient(lambda _: nacked()), rows("a"), outages)
    clock.now += 60.0
    sent = []
    for _ in range(5):
        await send(client := FakeClient(), rows(*[None] * 40), outages)
        sent.append(len(client.taken))
    assert sent == [1, 2, 4, 8, 16]


async def test_a_message_that_is_returned_because_the_node_of_its_queue_is_down_is_not_refused() -> None:
    client, outages = FakeClient(lambda _: returned()), Outages()
    client.queues_down.add("q")
    _, verdicts = await send(client, rows("a", "a", "b", None), outages)
    assert {type(each) for each in verdicts.values()} == {Unsent}
    assert "the node that has this queue is down" in str(verdicts[0])
    assert client.asked == ["q"], "once for all"
    assert [part.name for part in outages.down()] == ["q"]


@pytest.mark.parametrize(
    ("publisher", "queue"),
    [
        ({"queue": "q", "exchange": "e"}, "q"),
        ({"routing_key": "r", "exchange": "e"}, "r"),
        ({"queue": RabbitQueue("q", routing_key="r"), "exchange": "e"}, "q"),
        ({"queue": "q", "routing_key": "r", "exchange": "e"}, "q"),
        ({"queue": RabbitQueue("q", routing_key="r")}, "r"),
    ],
)
async def test_what_an_exchange_returns_is_not_refused_if_the_queue_of_the_publisher_is_down(
    publisher: dict[str, Any], queue: str
) -> None:
    settings = RabbitSettings.of(RabbitBroker(logger=None).publisher(**publisher))
    client, outages = FakeClient(lambda _: returned()), Outages()
    client.queues_down.add(queue)
    _, verdicts = await send(client, rows("a"), outages, settings)
    assert isinstance(verdicts[0], Unsent)
    assert client.asked == [queue]
    assert [part.name for part in outages.down()] == [settings.routing_key]


async def test_the_queue_of_a_publisher_on_a_router_has_its_prefix() -> None:
    router = RabbitRouter(prefix="shop-")
    publisher = router.publisher(RabbitQueue("q", routing_key="r"), exchange="e")
    RabbitBroker(logger=None).include_router(router)
    settings = RabbitSettings.of(publisher)
    assert (settings.routing_key, settings.queue) == ("shop-r", "shop-q")


async def test_what_an_exchange_returns_is_refused_if_the_queue_of_the_publisher_is_there() -> None:
    settings = RabbitSettings.of(RabbitBroker(logger=None).publisher("q", exchange="e"))
    client = FakeClient(lambda _: returned())
    _, verdicts = await send(client, rows("a"), Outages(), settings)
    assert isinstance(verdicts[0], Refused)


async def test_what_an_exchange_without_a_routing_key_returns_is_refused_without_a_question() -> None:
    settings = RabbitSettings.of(RabbitBroker(logger=None).publisher(exchange="e"))
    client = FakeClient(lambda _: returned())
    client.queues_down.add("")
    _, verdicts = await send(client, rows("a"), Outages(), settings)
    assert isinstance(verdicts[0], Refused)
    assert client.asked == []


async def test_a_row_with_a_routing_key_of_its_own_is_refused_without_a_question() -> None:
    settings = RabbitSettings.of(RabbitBroker(logger=None).publisher("q", exchange="e"))
    client, verdicts = FakeClient(lambda _: returned()), dict[int, Verdict]()
    client.queues_down.add("other")
    [its_row] = rows("a")
    await MessageSender(client, settings, Outages(), verdicts).send([Parcel(its_row, "other")])
    assert isinstance(verdicts[0], Refused)
    assert client.asked == []


async def test_where_it_cannot_be_asked_a_returned_message_is_refused() -> None:
    class Broken(FakeClient):
        async def is_node_down(self, queue: str) -> bool:
            raise ConnectionError

    _, verdicts = await send(Broken(lambda _: returned()), rows("a"))
    assert isinstance(verdicts[0], Refused)

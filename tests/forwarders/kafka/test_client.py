"""What the client asks of Kafka, and what it makes of the answers. That Kafka answers so is shown on a real one."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaConnectionError, RequestTimedOutError
from aiokafka.protocol.metadata import MetadataRequest, MetadataResponse_v1
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.structs import TopicPartition

from faststream_outbox.forwarders.kafka import client as client_module
from faststream_outbox.forwarders.kafka import lender as module
from faststream_outbox.forwarders.kafka.client import KafkaClient
from faststream_outbox.forwarders.kafka.verdicts import KafkaAnswerError
from faststream_outbox.forwarders.suspects import ConnectionBrokenError

from .connections import Connection
from .rows import settings

TOPIC = "topic"
SERVERS = (7, 8)


class FakeKafka:
    """Stands where aiokafka's client does: partitions 0 and 1 of each topic, one on each of two servers."""

    def __init__(self, **_options: Any) -> None:
        self.cluster: Any = None
        self.requests: list[Any] = []
        self.answer: Callable[[], int] = lambda: 0
        self.dead: set[int] = set()
        self.asked: list[int] = []
        self._conns = {(SERVERS[0], 0): Connection(9092 + SERVERS[0])}
        self.transport = self._conns[SERVERS[0], 0].transport
        self.codes: dict[int, int] = {}
        """What servers answer to a question about partitions; others do not answer."""
        self.silent: set[int] = set()

    async def send(self, server: int, request: Any) -> Any:
        self.requests.append(request)
        if server in self.silent:
            answer = asyncio.get_running_loop().create_future()
            self._conns[server, 0]._requests.append((0, None, answer))
            return await answer
        if isinstance(request, MetadataRequest):
            return self._where(request._topics)
        if isinstance(request, OffsetRequest):
            [(topic, partitions)] = request._topics
            return SimpleNamespace(topics=[(topic, [(number, self.codes[server], 0) for number, _ in partitions])])
        return SimpleNamespace(topics=[(TOPIC, [(0, self.answer(), 17)])])

    async def ready(self, server: int) -> bool:
        self.asked.append(server)
        return server not in self.dead

    async def close(self) -> None: ...

    def _where(self, topics: list[str]) -> MetadataResponse_v1:
        servers = [(server, "localhost", 9092 + server, None) for server in SERVERS]
        partitions = [(0, number, server, [server], [server]) for number, server in enumerate(SERVERS)]
        return MetadataResponse_v1(servers, SERVERS[0], [(0, topic, False, partitions) for topic in topics])

    @property
    def looked_up(self) -> list[list[str]]:
        return [sorted(request._topics) for request in self.requests if isinstance(request, MetadataRequest)]


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> FakeKafka:
    fake = FakeKafka()
    monkeypatch.setattr(module, "AIOKafkaClient", lambda **_options: fake)
    return fake


@pytest.fixture
async def client(kafka: FakeKafka) -> KafkaClient:
    made = KafkaClient(settings(client_options={"bootstrap_servers": "localhost:9092"}))
    await made.refresh()
    return made


async def test_all_replicas_have_to_acknowledge(client: KafkaClient, kafka: FakeKafka) -> None:
    assert await client.produce(TOPIC, 0, b"batch") == 17

    [sent] = [request for request in kafka.requests if isinstance(request, ProduceRequest)]
    assert sent.required_acks == -1


@pytest.mark.parametrize("code", [-1, 7, 10])
async def test_each_error_code_is_an_error(client: KafkaClient, kafka: FakeKafka, code: int) -> None:
    kafka.answer = lambda: code
    with pytest.raises(KafkaAnswerError) as raised:
        await client.produce(TOPIC, 0, b"batch")
    assert raised.value.code == code


@pytest.mark.parametrize("code", [3, 29])
async def test_a_topic_that_turns_out_to_be_missing_is_looked_up_again(
    client: KafkaClient, kafka: FakeKafka, code: int
) -> None:
    assert not await client.look_up([TOPIC])
    assert kafka.looked_up == [[TOPIC]]
    kafka.answer = lambda: code
    with pytest.raises(KafkaAnswerError):
        await client.produce(TOPIC, 0, b"batch")

    await client.look_up([TOPIC])
    assert kafka.looked_up == [[TOPIC], [TOPIC]]

    await client.look_up([TOPIC])
    assert len(kafka.looked_up) == 2


async def test_an_answer_about_one_batch_leaves_the_topic_known(client: KafkaClient, kafka: FakeKafka) -> None:
    kafka.answer = lambda: 10
    with pytest.raises(KafkaAnswerError):
        await client.produce(TOPIC, 0, b"batch")

    await client.look_up([TOPIC])
    assert kafka.looked_up == [[TOPIC]]


async def test_a_connection_that_breaks_over_a_batch_accuses_its_server(client: KafkaClient, kafka: FakeKafka) -> None:
    def break_off() -> int:
        raise KafkaConnectionError("reset")

    kafka.answer = break_off
    with pytest.raises(ConnectionBrokenError):
        await client.produce(TOPIC, 0, b"batch")
    assert client.broken_nodes == {SERVERS[0]}


async def test_of_several_servers_each_dead_one_is_found_before_anything_is_sent(
    client: KafkaClient, kafka: FakeKafka
) -> None:
    kafka.dead = {SERVERS[1]}
    partitions = [TopicPartition(TOPIC, number) for number in range(len(SERVERS))]

    assert list(await client.lost(partitions)) == [partitions[1]]


async def test_the_only_server_is_not_asked_beforehand(client: KafkaClient, kafka: FakeKafka) -> None:
    assert not await client.lost([TopicPartition(TOPIC, 0)])
    assert kafka.asked == []


async def test_closing_throws_away_what_has_not_left_this_machine(client: KafkaClient, kafka: FakeKafka) -> None:
    await client.close()
    assert kafka.transport.was_reset


async def test_a_batch_without_an_answer_in_time_does_not_leave_this_machine_any_more(
    client: KafkaClient, kafka: FakeKafka
) -> None:
    def give_up() -> int:
        # As aiokafka does: from here on its connection knows nothing that could be reset.
        kafka._conns[SERVERS[0], 0]._writer = None
        raise RequestTimedOutError

    kafka.answer = give_up
    with pytest.raises(TimeoutError):
        await client.produce(TOPIC, 0, b"batch")
    assert kafka.transport.was_reset


async def test_a_close_that_is_cancelled_leaves_the_lender(
    client: KafkaClient, kafka: FakeKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_closing = asyncio.Event()

    async def hang() -> None:
        is_closing.set()
        await asyncio.Event().wait()

    other = KafkaClient(settings(client_options={"bootstrap_servers": "localhost:9092"}))
    client.borrow()
    monkeypatch.setattr(kafka, "close", hang)
    closing = asyncio.create_task(client.close())
    await is_closing.wait()
    closing.cancel()
    await asyncio.wait([closing])
    monkeypatch.undo()

    idle = FakeKafka()
    other._lender.take_back(cast("Any", idle))
    await other.close()
    assert idle.transport.was_reset, "the last borrower closes what is idle"


async def test_a_refresh_keeps_other_topics(client: KafkaClient, kafka: FakeKafka) -> None:
    await client.look_up(["other"])
    await client.refresh()
    assert not await client.look_up(["other"])
    assert kafka.looked_up == [[TOPIC], ["other", TOPIC], ["other", TOPIC]]


async def test_a_topic_in_doubt_is_looked_up_again(client: KafkaClient, kafka: FakeKafka) -> None:
    client.doubt(TOPIC)
    await client.look_up([TOPIC])
    assert kafka.looked_up == [[TOPIC], [TOPIC]]


async def test_a_connection_to_where_a_server_was_is_not_used(client: KafkaClient, kafka: FakeKafka) -> None:
    stays, moved = Connection(9092 + SERVERS[0]), Connection(9093)
    kafka._conns = {(SERVERS[0], 0): stays, (SERVERS[1], 0): moved}
    await client.refresh()
    assert [*kafka._conns] == [(SERVERS[0], 0)]
    assert [stays.transport.was_reset, moved.transport.was_reset] == [False, True]


async def test_nothing_waits_behind_a_question_that_was_given_up(
    client: KafkaClient, kafka: FakeKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "SERVER_SECONDS", 0.01)
    connections = kafka._conns = {(server, 0): Connection(9092 + server) for server in SERVERS}
    first = next(iter(client._cluster.brokers())).nodeId  # type: ignore[no-untyped-call]
    kept = {**connections}
    kafka.silent = {first}
    await client.refresh()
    assert first not in {server for server, _ in connections}
    assert {server: each.transport.was_reset for (server, _), each in kept.items()} == {
        server: server == first for server in SERVERS
    }


async def test_what_else_is_on_its_way_to_a_server_stays_when_a_question_is_given_up(
    client: KafkaClient, kafka: FakeKafka
) -> None:
    batch = asyncio.get_running_loop().create_future()
    connection = kafka._conns[SERVERS[0], 0] = Connection(9092 + SERVERS[0], batch)
    kafka.silent = {SERVERS[0]}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await client.ask_leader(SERVERS[0], MetadataRequest([]))
    assert kafka._conns == {(SERVERS[0], 0): connection}
    assert not connection.transport.was_reset
    client.give_back()
    assert not connection.transport.was_reset
    batch.cancel()
    client.borrow()
    client.give_back()
    assert connection.transport.was_reset


@pytest.mark.parametrize(("code", "answers"), [(0, True), (6, True), (None, False)])
async def test_any_answer_about_a_partition_is_one(
    client: KafkaClient, kafka: FakeKafka, monkeypatch: pytest.MonkeyPatch, code: int | None, answers: bool
) -> None:
    monkeypatch.setattr(client_module, "REACH_SECONDS", 0.01)
    if code is None:
        kafka.silent = {SERVERS[0]}
    else:
        kafka.codes[SERVERS[0]] = code
    partition = TopicPartition(TOPIC, 0)
    assert await client.codes(SERVERS[0], [partition]) == ({partition: code} if answers else {})


async def test_partitions_are_asked_about_by_their_leaders(client: KafkaClient) -> None:
    zero, one, unknown = (TopicPartition(TOPIC, number) for number in range(3))
    assert client.by_leader([zero, one, unknown]) == {SERVERS[0]: [zero], SERVERS[1]: [one]}

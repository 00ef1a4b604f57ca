"""Whether a server of the cluster has ended a connection, or has gone."""

from typing import Any

import pytest

from faststream_outbox._values.outcome import Accepted, Refused, Unsent
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.kafka import destination as module
from faststream_outbox.forwarders.kafka.destination import KafkaDestination
from faststream_outbox.forwarders.kafka.verdicts import KafkaAnswerError
from faststream_outbox.forwarders.suspects import ConnectionBrokenError, Suspects

from .rows import row, settings


class Cluster:
    """Partition 0 is on node 7; another node tells where the partitions are."""

    def __init__(self) -> None:
        self.breaks = True
        self.is_node_up = True
        self.flights: list[int] = []


class Client:
    is_alive = is_fresh = True

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.broken_nodes: set[int] = set()

    async def refresh(self) -> None: ...

    async def look_up(self, topics: Any) -> dict[str, Exception]:
        return {}

    def partitions(self, topic: str) -> list[int]:
        return [0]

    available_partitions = partitions

    async def lost(self, partitions: Any) -> dict[Any, ConnectionError]:
        return {}

    async def produce(self, topic: str, partition: int, batch: bytes) -> None:
        self.cluster.flights.append(len(batch))
        if self.cluster.breaks:
            self.broken_nodes.add(7)
            raise ConnectionBrokenError("reset")

    async def reaches(self, node: int) -> bool:
        assert node == 7
        return self.cluster.is_node_up

    async def close(self) -> None: ...


@pytest.mark.parametrize("is_node_up", [False, True])
async def test_a_row_is_accused_only_if_the_very_server_is_there(
    is_node_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, suspects = Cluster(), Suspects()
    cluster.is_node_up = is_node_up
    monkeypatch.setattr(module, "KafkaClient", lambda _settings: Client(cluster))
    destination = KafkaDestination(settings(), suspects, 5.0)
    for _ in range(3):
        await destination.connect()
        [verdict] = await destination.send([Parcel(row(1))])
        assert isinstance(verdict, Unsent)
    await destination.connect()
    assert (suspects.verdict_on(1) is not None) is is_node_up
    cluster.breaks = False
    [verdict] = await destination.send([Parcel(row(1))])
    assert (verdict == Accepted()) is not is_node_up
    assert len(cluster.flights) == (3 if is_node_up else 4)


class Lookups(Client):
    """Counts how often it was asked where the partitions are, and breaks as it is told."""

    def __init__(self) -> None:
        super().__init__(Cluster())
        self.refreshed = 0
        self.closed = 0
        self.is_fresh = True
        self.error: Exception | None = None
        self.missing: dict[str, Exception] = {}

    async def refresh(self) -> None:
        self.refreshed += 1

    async def look_up(self, topics: Any) -> dict[str, Exception]:
        return {topic: self.missing[topic] for topic in topics if topic in self.missing}

    async def produce(self, topic: str, partition: int, batch: bytes) -> None:
        if self.error is not None:
            raise self.error

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Lookups:
    client = Lookups()
    monkeypatch.setattr(module, "KafkaClient", lambda _settings: client)
    return client


async def test_where_the_partitions_are_is_asked_again_after_a_while(client: Lookups) -> None:
    destination = KafkaDestination(settings(), Suspects(), 5.0)
    await destination.connect()
    await destination.connect()
    assert client.refreshed == 1
    client.is_fresh = False
    await destination.connect()
    assert client.refreshed == 2


@pytest.mark.parametrize(
    ("error", "is_kept"), [(KafkaAnswerError(6, "moved"), True), (TimeoutError("no answer"), False)]
)
async def test_a_connection_is_kept_only_if_all_that_was_sent_on_it_has_an_answer(
    client: Lookups, error: Exception, is_kept: bool
) -> None:
    destination = KafkaDestination(settings(), Suspects(), 5.0)
    await destination.connect()
    client.error = error
    await destination.send([Parcel(row(1))])
    assert client.closed == (0 if is_kept else 1)


@pytest.mark.parametrize(("topic", "expected"), [("topic", Unsent), ("elsewhere", Refused)])
async def test_a_missing_topic_is_an_outage_unless_the_row_has_named_it(
    client: Lookups, topic: str, expected: type[Any]
) -> None:
    destination = KafkaDestination(settings(), Suspects(), 5.0)
    await destination.connect()
    client.missing = {topic: KafkaAnswerError(3, topic)}
    [verdict] = await destination.send([Parcel(row(1), None if topic == "topic" else topic)])
    assert isinstance(verdict, expected)

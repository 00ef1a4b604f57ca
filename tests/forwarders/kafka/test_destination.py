"""Whether a server of the cluster has ended a connection, or has gone."""

from typing import Any

import pytest

from faststream_outbox._values.outcome import Accepted, Unsent
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.kafka import destination as module
from faststream_outbox.forwarders.kafka.destination import KafkaDestination
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

    async def lost(self, places: Any) -> dict[Any, ConnectionError]:
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
    assert (suspects.sentence(1) is not None) is is_node_up
    cluster.breaks = False
    [verdict] = await destination.send([Parcel(row(1))])
    assert (verdict == Accepted()) is not is_node_up
    assert len(cluster.flights) == (3 if is_node_up else 4)

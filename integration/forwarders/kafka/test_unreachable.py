"""Servers that drop all packets, beside one that is well: they cost a moment and not the connection."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiokafka.cluster import ClusterMetadata
from aiokafka.structs import BrokerMetadata
from faststream.kafka import KafkaBroker

from faststream_outbox._values.outcome import Accepted, Unsent
from faststream_outbox.forwarders.kafka import client
from faststream_outbox.forwarders.kafka.client import KafkaClient
from integration.destinations.kafka import KafkaBox
from integration.faults.proxy import TcpProxy
from integration.forwarders.parcels import connects, destination, parcel
from integration.servers.kafka import KafkaServer
from integration.servers.process import LOOPBACK


@pytest.fixture
async def dead(kafka_server: KafkaServer, nothing_is_left_behind: None) -> AsyncIterator[list[TcpProxy]]:
    """Three servers that take connections, and nothing more is heard of them."""
    host, _, port = kafka_server.bootstrap.split(",")[0].partition(":")
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(TcpProxy(host, int(port))) for _ in range(3)]
        for proxy in proxies:
            proxy.black_hole()
        yield proxies


async def test_a_server_behind_dead_ones_is_found_in_one_attempt(
    topic: KafkaBox, dead: list[TcpProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    brokers = ClusterMetadata.brokers
    dead_ports = {proxy.port for proxy in dead}

    def dead_ones_first(self: ClusterMetadata) -> list[Any]:
        return sorted(brokers(self), key=lambda server: server.port not in dead_ports)

    monkeypatch.setattr(ClusterMetadata, "brokers", dead_ones_first)
    monkeypatch.setattr(client, "SERVER_SECONDS", 0.3)
    kafka = KafkaBroker([*(proxy.address for proxy in dead), topic.url], acks="all", logger=None)
    async with destination(kafka.publisher(topic.name)) as to:
        async with asyncio.timeout(5.0):
            await to.connect()
        assert await to.send([parcel()]) == [Accepted()]


async def test_a_leader_that_cannot_be_reached_keeps_no_row_from_another(
    topic: KafkaBox, dead: list[TcpProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    locate = KafkaClient._locate

    async def with_a_dead_leader(self: KafkaClient, topics: Collection[str]) -> None:
        await locate(self, topics)
        cluster = self._client.cluster
        cluster._brokers[99] = BrokerMetadata(99, LOOPBACK, dead[0].port, None)
        partitions = cluster._partitions[topic.name]
        partitions[0] = partitions[0]._replace(leader=99)

    monkeypatch.setattr(client, "SERVER_SECONDS", 0.5)
    monkeypatch.setattr(KafkaClient, "_locate", with_a_dead_leader)
    kafka = KafkaBroker(topic.url, acks="all", logger=None)
    async with destination(kafka.publisher(topic.name)) as to:
        assert await connects(to)
        parcels = [parcel(key=f"key-{n}") for n in range(60)]
        verdicts = await to.send(parcels)
    accepted = [each.row.id for each, verdict in zip(parcels, verdicts, strict=True) if verdict == Accepted()]
    unsent = [verdict for verdict in verdicts if isinstance(verdict, Unsent)]
    assert accepted
    assert unsent
    assert len(accepted) + len(unsent) == len(parcels)
    assert {str(verdict.exception) for verdict in unsent} == {f"partition 0 of {topic.name!r}: no way to server 99"}
    assert len(await topic.received(len(accepted))) == len(accepted)

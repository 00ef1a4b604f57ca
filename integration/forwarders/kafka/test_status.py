"""Pause, resume and status of a forwarder between a real table and a real topic."""

import asyncio
from collections.abc import Callable
from typing import Any

from faststream.kafka import KafkaBroker

from faststream_outbox import ForwarderStatus, OutboxBroker, OutboxForwarder, Outgoing
from integration.broker.observing import Table, eventually
from integration.destinations.kafka import KafkaBox
from integration.faults.proxy import TcpProxy
from integration.forwarders.carrying import HAND_OVERS, Publishing, connections_to


async def status_when(forwarder: OutboxForwarder, condition: Callable[[ForwarderStatus], Any]) -> ForwarderStatus:
    async def matching() -> ForwarderStatus | None:
        status = await forwarder.status()
        return status if condition(status) else None

    status: ForwarderStatus = await eventually(matching, within=15)
    return status


async def test_through_an_outage(
    broker: OutboxBroker,
    proxied_kafka: KafkaBroker,
    kafka_proxy: TcpProxy,
    topic: KafkaBox,
    publishing: Publishing,
) -> None:
    kafka_proxy.refuse()
    forwarder = broker.forwarder("orders", to=proxied_kafka.publisher(topic.name))
    assert (await forwarder.status()).state == "stopped"
    await broker.start()
    await publishing.many(Outgoing(b"", key=f"key-{n % 5}") for n in range(20))
    status = await status_when(forwarder, lambda status: status.last_error)
    assert (status.state, status.lag_rows, status.sent) == ("connecting", 20, 0)
    assert status.lag_seconds is not None
    assert 0.0 < status.lag_seconds < 30.0
    await kafka_proxy.restore()
    status = await status_when(forwarder, lambda status: status.sent == 20)
    status = await status_when(forwarder, lambda status: status.state == "flowing" and not status.last_error)
    assert (status.lag_rows, status.lag_seconds) == (0, 0.0)
    kafka_proxy.refuse()
    kafka_proxy.reset()
    await publishing.many([Outgoing(b"", key="k")] * 3)
    status = await status_when(forwarder, lambda status: status.state == "down")
    assert (status.lag_rows, status.refused, status.dead) == (3, 0, 0)
    assert status.last_error is not None
    assert "ConnectionError" in status.last_error
    await kafka_proxy.restore()
    await status_when(forwarder, lambda status: status.sent == 23 and status.state == "flowing")
    await broker.stop()
    assert (await forwarder.status()).state == "stopped"


async def test_a_pause(
    broker: OutboxBroker,
    proxied_kafka: KafkaBroker,
    kafka_proxy: TcpProxy,
    topic: KafkaBox,
    publishing: Publishing,
    table: Table,
) -> None:
    """While a hand-over is in flight: it is finished, no other begins, and no connection is held."""
    forwarder = broker.forwarder("orders", to=proxied_kafka.publisher(topic.name), batch_size=10)
    await broker.start()
    await publishing.one(b"", key="k")
    await eventually(table.is_empty, within=10)
    kafka_proxy.black_hole()
    await publishing.many([Outgoing(b"", key="k")] * 30)
    await eventually(lambda: table.query(HAND_OVERS))
    forwarder.pause()
    assert (await forwarder.status()).state == "paused"
    await kafka_proxy.restore()
    await eventually(lambda: _are(table, 20), within=10)
    await eventually(lambda: not connections_to(kafka_proxy.port))
    await asyncio.sleep(0.5)
    assert await table.count() == 20
    assert not await table.query(HAND_OVERS)
    assert (await forwarder.status()).lag_rows == 20
    forwarder.resume()
    await eventually(table.is_empty, within=10)
    assert len(await topic.received(31)) == 31


async def _are(table: Table, count: int) -> bool:
    return await table.count() == count

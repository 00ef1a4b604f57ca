"""MQTT 5 at QoS 1, on a real mosquitto; needs FastStream's extra of that name."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from faststream_outbox import Forward, OutboxBroker, OutboxMessage, Outgoing
from integration.broker.observing import LogLines, Table, eventually
from integration.destinations.received import Received, check_complete
from integration.faults.proxy import TcpProxy
from integration.forwarders.carrying import Publishing, all_failed, nothing_is_counted
from integration.forwarders.conftest import MakeBroker
from integration.servers.mosquitto import EmbeddedMosquitto, running_mosquitto
from integration.servers.process import LOOPBACK, ServerUnavailable

zmqtt = pytest.importorskip("zmqtt")
TOPIC = "orders/created"


@pytest.fixture(scope="module")
def mosquitto() -> Iterator[EmbeddedMosquitto]:
    try:
        with running_mosquitto() as server:
            yield server
    except ServerUnavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture
async def received(mosquitto: EmbeddedMosquitto, nothing_is_left_behind: None) -> AsyncIterator[list[Received]]:
    """What a plain client gets, as it comes."""
    messages: list[Received] = []

    async def listen() -> None:
        async with (
            zmqtt.create_client(LOOPBACK, mosquitto.port, version="5.0") as client,
            client.subscribe("orders/#", qos=zmqtt.QoS.AT_LEAST_ONCE) as subscription,
        ):
            listening.set()
            async for message in subscription:
                headers = dict(message.properties.user_properties)
                messages.append(Received(0, headers.pop("outbox-key", None), message.payload, headers))

    listening = asyncio.Event()
    task = asyncio.create_task(listen())
    await listening.wait()
    yield messages
    task.cancel()
    await asyncio.wait([task])


def publisher_at(port: int) -> Any:
    from faststream.mqtt import MQTTBroker

    broker = MQTTBroker(f"mqtt://{LOOPBACK}:{port}", logger=None, mqtt_connect_timeout=1.0)
    return broker.publisher(TOPIC, qos=zmqtt.QoS.AT_LEAST_ONCE)


async def test_rows_arrive_with_their_headers_in_the_order_of_their_keys(
    broker: OutboxBroker, mosquitto: EmbeddedMosquitto, received: list[Received], publishing: Publishing, table: Table
) -> None:
    broker.forwarder("orders", to=publisher_at(mosquitto.port))
    ids = await publishing.many(
        Outgoing(b"\x00\xff%d" % n, key=f"kunde-{n % 7}-ü", headers={"X-Größe": "☃"}) for n in range(500)
    )
    await broker.start()
    await eventually(table.is_empty, within=15)
    await eventually(lambda: len(received) >= len(ids))
    assert len(received) == len(ids)
    check_complete(received, ids)
    assert {message.headers["X-Größe"] for message in received} == {"☃"}
    assert {message.body for message in received} == {b"\x00\xff%d" % n for n in range(500)}


async def test_an_outage_counts_nothing(
    *,
    make_broker: MakeBroker,
    mosquitto: EmbeddedMosquitto,
    received: list[Received],
    publishing: Publishing,
    table: Table,
    log: LogLines,
) -> None:
    async with TcpProxy(LOOPBACK, mosquitto.port) as proxy:
        broker = make_broker(logger=log)
        broker.forwarder("orders", to=publisher_at(proxy.port), batch_size=50)
        await broker.start()
        ids = [await publishing.one(b"", key="key-0")]
        await eventually(table.is_empty, within=10)
        proxy.refuse()
        proxy.reset()
        ids += await publishing.many(Outgoing(b"", key=f"key-{n % 5}") for n in range(100))
        await eventually(lambda: log.at_least(logging.ERROR), within=10)
        await nothing_is_counted(table)
        await proxy.restore()
        await eventually(table.is_empty, within=20)
        await eventually(lambda: len(received) >= len(ids))
        check_complete(received, ids)
        assert len(log.at_least(logging.ERROR)) <= 2
        await broker.stop()


async def test_what_is_too_large_for_the_server_is_poison(
    broker: OutboxBroker, mosquitto: EmbeddedMosquitto, received: list[Received], publishing: Publishing, table: Table
) -> None:
    broker.forwarder("orders", to=publisher_at(mosquitto.port))
    ids = await publishing.many(Outgoing(b"x" * size, key="k") for size in (10, 100_001, 20))
    await broker.start()
    await eventually(lambda: all_failed(table), within=10)
    [parked] = await table.rows()
    assert (parked.id, parked.failure_reason) == (ids[1], "too_large")
    await eventually(lambda: len(received) == 2)
    check_complete(received, [ids[0], ids[2]])


async def test_what_the_server_would_end_the_connection_over_is_poison_and_stops_no_other(
    broker: OutboxBroker, mosquitto: EmbeddedMosquitto, received: list[Received], publishing: Publishing, table: Table
) -> None:
    def transform(message: OutboxMessage) -> Forward:
        return Forward(to=f"orders/{message.headers['of']}")

    broker.forwarder("orders", to=publisher_at(mosquitto.port), transform=transform)
    bad = [
        Outgoing(b"", headers={"of": "a", "tab": "\t"}),
        Outgoing(b"", headers={"of": "a", "na\x9fme": ""}),
        Outgoing(b"", headers={"of": "a", "not a character": "\ufdd0"}),
        Outgoing(b"", headers={"of": "a", "nor is this": "\U0010ffff"}),
        Outgoing(b"", headers={"of": "a", "content-type": "text/plain\r\n"}),
        Outgoing(b"", key="\ufdd0", headers={"of": "a"}),
        Outgoing(b"", headers={"of": "\x1f"}),
    ]
    good = [Outgoing(b"", key="k", headers={"of": "a", "x": "\ufeff ~\xa0\ufdcf\ufdf0\ufffd\U0001f4e6"})] * 10
    bad_ids, good_ids = await publishing.many(bad), await publishing.many(good)
    await broker.start()
    await eventually(lambda: all_failed(table), within=10)
    assert {row.id: row.failure_reason for row in await table.rows()} == dict.fromkeys(bad_ids, "invalid")
    await eventually(lambda: len(received) == len(good))
    check_complete(received, good_ids)

"""What a consumer finds, wherever the rows went: section "On the wire" of the contract, message by message."""

import json
import random
from datetime import datetime
from typing import Any

import pytest
from faststream import Context

from faststream_outbox import OutboxBroker
from integration.broker.observing import eventually
from integration.destinations.base import Box
from integration.destinations.kinds import EVERY, REAL

from .carriers import Carrier
from .carrying import Publishing, random_message

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OURS = {"idempotency-key", "outbox-id", "outbox-queue", "outbox-created-at", "correlation_id", "content-type"}


@pytest.mark.parametrize("box", EVERY, indirect=True)
async def test_a_message_carries_the_row(box: Box, carrier: Carrier) -> None:
    unusual = {"X-Größe": "☃"} if "ß" in box.header_names else {"X-Size": "☃"}
    await carrier.forward(["orders"])
    row_id = await carrier.publish_one(
        {"order": 1, "name": "Müller"},
        key="kunde-ü",
        headers={"traceparent": TRACEPARENT, **unusual},
        correlation_id="correlation 1",
        idempotency_key="order-1",
    )
    [row] = await carrier.rows()
    assert row.attempts_count == 0
    await carrier.go()
    [message] = await box.received(1)
    assert message.key == "kunde-ü"
    assert message.body == bytes(row.payload)
    assert json.loads(message.body) == {"order": 1, "name": "Müller"}
    headers = {name: value for name, value in message.headers.items() if name not in box.adds_headers - OURS}
    assert datetime.fromisoformat(headers["outbox-created-at"]) == row.created_at
    assert headers.pop("outbox-created-at").endswith("Z")
    assert headers == {
        "traceparent": TRACEPARENT,
        **unusual,
        "idempotency-key": "order-1",
        "outbox-id": str(row_id),
        "outbox-queue": "orders",
        "correlation_id": "correlation 1",
        "content-type": "application/json",
    }
    await carrier.drained()


@pytest.mark.parametrize("box", EVERY, indirect=True)
async def test_random_bodies_and_headers_arrive_byte_for_byte(box: Box, carrier: Carrier) -> None:
    draw = random.Random(20)
    messages = [random_message(draw, box) for _ in range(300)]
    await carrier.forward(["orders"], batch_size=37)
    ids = await carrier.publish(messages)
    await carrier.go()
    received = {message.row_id: message for message in await box.received(len(messages))}
    for row_id, message in zip(ids, messages, strict=True):
        arrived = received[row_id]
        assert arrived.body == message.body
        assert arrived.key == message.key
        theirs = {name: value for name, value in arrived.headers.items() if name not in OURS | box.adds_headers}
        assert theirs == message.headers


@pytest.mark.parametrize("box", REAL, indirect=True)
async def test_a_consumer_there_gets_what_a_local_subscriber_gets(
    box: Box, broker: OutboxBroker, publishing: Publishing
) -> None:
    headers = {"x": "y"} if "ü" not in box.header_names else {"x": "y", "ü": "ö"}
    bodies: list[Any] = [{"a": [1, None]}, "text", b"\x00\xff", b"", 3.5, ["list"]]
    local: dict[str, Any] = {}
    remote: dict[str, Any] = {}

    @broker.subscriber("local")
    async def handle(body: Any, message: Any = Context()) -> None:
        local[message.headers["idempotency-key"]] = (body, message)

    async def consume(body: Any, message: Any = Context()) -> None:
        remote[message.headers["idempotency-key"]] = (body, message)

    publisher = box.publisher()
    consuming = publisher._outer_config.extra_context["broker"]
    box.subscribe(consuming, consume)
    broker.forwarder("remote", to=publisher)
    for queue in ("local", "remote"):
        for number, body in enumerate(bodies):
            its = {"idempotency_key": f"i-{number}", "correlation_id": f"c-{number}"}
            await publishing.one(body, queue=queue, headers=headers, **its)
    async with consuming:
        await consuming.start()
        await broker.start()
        await eventually(lambda: len(local) == len(remote) == len(bodies), within=15)
        await broker.stop()
    its_own = {"outbox-id", "outbox-queue", "outbox-created-at", *box.adds_headers}
    for key, (local_body, local_message) in local.items():
        remote_body, remote_message = remote[key]
        assert remote_body == local_body
        assert remote_message.body == local_message.body
        assert (remote_message.content_type or None) == local_message.content_type
        if box.has_message_id:
            assert remote_message.message_id == local_message.message_id
        assert remote_message.correlation_id == local_message.correlation_id
        assert {name: value for name, value in remote_message.headers.items() if name not in its_own} == {
            name: value for name, value in local_message.headers.items() if name not in its_own
        }

"""CloudEvents on the real RabbitMQ, read by both readers of the package ``cloudevents``."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from aio_pika.abc import AbstractIncomingMessage
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.amqp import AMQPMessage, from_amqp
from cloudevents.core.bindings.rabbitmq import RabbitMQMessage, from_rabbitmq
from cloudevents.core.formats.json import JSONFormat
from faststream.rabbit import RabbitBroker

from faststream_outbox import OutboxBroker, Outgoing
from integration.destinations.rabbit import QueueBox
from integration.forwarders.carrying import Publishing

BODIES: list[Any] = [{"total": 3, "ä": [None, True, 1.5]}, [], "text ä", b"\x00\xff", None]


def by_rabbitmq(message: AbstractIncomingMessage) -> BaseCloudEvent:
    return from_rabbitmq(RabbitMQMessage(dict(message.headers), message.content_type, message.body), JSONFormat())


def by_amqp(message: AbstractIncomingMessage) -> BaseCloudEvent:
    """As one of AMQP 1.0, to which RabbitMQ would turn it: headers become application properties."""
    properties = {} if message.content_type is None else {"content-type": message.content_type}
    return from_amqp(AMQPMessage(properties, dict(message.headers), message.body), JSONFormat())


@pytest.mark.parametrize("read", [by_rabbitmq, by_amqp])
async def test_rows_arrive_as_events_of_which_the_bodies_are_unchanged(
    read: Callable[[AbstractIncomingMessage], BaseCloudEvent],
    broker: OutboxBroker,
    rabbit: RabbitBroker,
    mailbox: QueueBox,
    publishing: Publishing,
) -> None:
    broker.forwarder("orders", to=rabbit.publisher(mailbox.name), envelope="cloudevents")
    headers = {"ce_type": "order.placed", "ce_source": "/shop", "ce_subject": "17", "ce_tenant": "t", "team": "shop"}
    await publishing.many(Outgoing(body, key="k", headers=headers if n % 2 else None) for n, body in enumerate(BODIES))
    await broker.start()
    messages = await mailbox.messages(len(BODIES))
    for number, (message, body) in enumerate(zip(messages, BODIES, strict=True)):
        event, headers_there = read(message), dict(message.headers)
        assert event.get_id() == headers_there["idempotency-key"] == message.message_id
        assert event.get_specversion() == "1.0"
        assert event.get_time() == datetime.fromisoformat(headers_there["outbox-created-at"])
        assert event.get_extension("partitionkey") == headers_there["outbox-key"] == "k"
        assert event.get_datacontenttype() == message.content_type
        if number % 2:
            assert (event.get_type(), event.get_source(), event.get_subject()) == ("order.placed", "/shop", "17")
            assert event.get_extension("tenant") == "t"
            assert headers_there["team"] == "shop"
        else:
            assert (event.get_type(), event.get_source()) == ("orders", "/outbox/orders")
        if isinstance(body, dict | list):
            assert event.get_data() == body
        elif isinstance(body, str):
            assert (event.get_data(), message.body) == (body, body.encode())
        else:
            assert message.body == (body or b"")

"""CloudEvents on the real Kafka, read by the package ``cloudevents``."""

from datetime import datetime
from typing import Any

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka
from cloudevents.core.formats.json import JSONFormat
from faststream.kafka import KafkaBroker
from faststream.redis import RedisBroker

from faststream_outbox import OutboxBroker, Outgoing
from faststream_outbox.exceptions import ConfigError
from integration.destinations.kafka import KafkaBox, as_received
from integration.forwarders.carrying import Publishing
from integration.servers.topics import Record

BODIES: list[Any] = [{"total": 3, "ä": [None, True, 1.5]}, [], "text ä", b"\x00\xff", None]


def read(record: Record) -> BaseCloudEvent:
    assert record.value is not None
    return from_kafka(KafkaMessage(dict(record.headers), record.key, record.value), JSONFormat())


async def test_rows_arrive_as_events_of_which_the_bodies_are_unchanged(
    broker: OutboxBroker, kafka: KafkaBroker, topic: KafkaBox, publishing: Publishing
) -> None:
    broker.forwarder("orders", to=kafka.publisher(topic.name), envelope="cloudevents")
    headers = {"ce_type": "order.placed", "ce_source": "/shop", "ce_subject": "17", "ce_tenant": "t", "team": "shop"}
    messages = [Outgoing(body, key="k", headers=headers if n % 2 else None) for n, body in enumerate(BODIES)]
    await publishing.many(messages)
    await broker.start()
    records = sorted(await topic.records(len(BODIES)), key=lambda record: as_received(record).row_id)
    for number, (record, body) in enumerate(zip(records, BODIES, strict=True)):
        event, headers_there = read(record), as_received(record).headers
        assert event.get_id() == headers_there["idempotency-key"] == headers_there["ce_id"]
        assert headers_there["ce_specversion"] == "1.0"
        assert event.get_time() == datetime.fromisoformat(headers_there["outbox-created-at"])
        assert event.get_extension("partitionkey") == "k"
        assert event.get_datacontenttype() == headers_there.get("content-type")
        if number % 2:
            assert (event.get_type(), event.get_source(), event.get_subject()) == ("order.placed", "/shop", "17")
            assert event.get_extension("tenant") == "t"
            assert headers_there["team"] == "shop"
        else:
            assert (event.get_type(), event.get_source()) == ("orders", "/outbox/orders")
        if isinstance(body, dict | list):
            assert event.get_data() == body
        elif isinstance(body, str):
            assert (event.get_data(), record.value) == (body, body.encode())
        else:
            assert record.value == (body or b"")


async def test_a_kind_without_a_binding_says_so_when_the_broker_starts(broker: OutboxBroker) -> None:
    to = RedisBroker("redis://localhost:1", logger=None).publisher(stream="orders")
    broker.forwarder("orders", to=to, envelope="cloudevents")
    with pytest.raises(ConfigError, match="'cloudevents' is not for Redis"):
        await broker.start()

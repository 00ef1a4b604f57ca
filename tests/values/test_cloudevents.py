"""What the readers of the package ``cloudevents`` make of a row."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings import amqp, kafka, rabbitmq
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st

from faststream_outbox._values.cloudevents import kafka_headers, rabbit_headers
from faststream_outbox._values.copies import copy_queue
from faststream_outbox._values.row import OutboxRow

CREATED = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
JSON = {"content-type": "application/json"}


def row(payload: bytes = b"{}", *, key: str | None = None, **options: Any) -> OutboxRow:
    values: dict[str, Any] = {"queue": "orders", "idempotency_key": "i-1", "headers": JSON, "created_at": CREATED}
    return OutboxRow(id=1, key=key, payload=payload, attempts_count=0, deliveries_count=0, **(values | options))


def by_kafka(sent: OutboxRow) -> BaseCloudEvent:
    headers = {name: value.encode() for name, value in kafka_headers(sent).items()}
    key = None if sent.key is None else sent.key.encode()
    return kafka.from_kafka(kafka.KafkaMessage(headers, key, sent.payload), JSONFormat())


def by_rabbitmq(sent: OutboxRow) -> BaseCloudEvent:
    message = rabbitmq.RabbitMQMessage(rabbit_headers(sent), sent.headers.get("content-type"), sent.payload)
    return rabbitmq.from_rabbitmq(message, JSONFormat())


def by_amqp(sent: OutboxRow) -> BaseCloudEvent:
    kind = sent.headers.get("content-type")
    properties = {} if kind is None else {"content-type": kind}
    return amqp.from_amqp(amqp.AMQPMessage(properties, dict(rabbit_headers(sent)), sent.payload), JSONFormat())


READERS = pytest.mark.parametrize("read", [by_kafka, by_rabbitmq, by_amqp])
Reader = Callable[[OutboxRow], BaseCloudEvent]


@READERS
def test_the_defaults(read: Reader) -> None:
    event = read(row(b'{"total": 3}', queue="shop/orders ä", key="k"))
    assert event.get_attributes() == {
        "id": "i-1",
        "specversion": "1.0",
        "type": "shop/orders ä",
        "source": "/outbox/shop%2Forders%20%C3%A4",
        "time": CREATED,
        "partitionkey": "k",
        "datacontenttype": "application/json",
    }
    assert event.get_data() == {"total": 3}


@READERS
def test_a_copy_is_of_the_queue_that_was_published_to(read: Reader) -> None:
    attributes = read(row(queue=copy_queue("shop/orders", "rabbit:orders"))).get_attributes()
    assert (attributes["type"], attributes["source"]) == ("shop/orders", "/outbox/shop%2Forders")


@READERS
def test_a_row_without_a_key_has_no_partition_key(read: Reader) -> None:
    assert "partitionkey" not in read(row()).get_attributes()


@READERS
def test_the_caller_wins_but_over_identity_and_version(read: Reader) -> None:
    headers = {
        "ce_type": "order.placed",
        "ce_SOURCE": "https://shop.test/",
        "ce_subject": "17",
        "ce_time": "2020-01-01T00:00:00Z",
        "ce_tenant": "t",
        "ce_dataschema": "",
        "ce_id": "mine",
        "ce_ID": "mine",
        "ce_specversion": "0.3",
    }
    event = read(row(headers=JSON | headers))
    assert (event.get_type(), event.get_source(), event.get_subject()) == ("order.placed", "https://shop.test/", "17")
    assert event.get_time() == datetime(2020, 1, 1, tzinfo=UTC)
    assert event.get_extension("tenant") == "t"
    assert event.get_dataschema() is None
    assert (event.get_id(), event.get_specversion()) == ("i-1", "1.0")


@pytest.mark.parametrize("headers_of", [kafka_headers, rabbit_headers])
def test_the_bridges_own_headers_and_all_others_of_the_caller_stay(
    headers_of: Callable[[OutboxRow], dict[str, str]],
) -> None:
    headers = headers_of(row(headers={"traceparent": "00-1", "ce_": "x", "ce_not valid": "y", "cellar": "z"}))
    assert headers | {"traceparent": "00-1", "ce_": "x", "ce_not valid": "y", "cellar": "z"} == headers
    assert headers["idempotency-key"] == "i-1"
    assert headers["outbox-queue"] == "orders"


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=30)


@READERS
@given(
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner)
    ),
    queue=texts,
    key=st.none() | texts,
    identity=texts,
    age=st.timedeltas(timedelta(0), timedelta(days=9000)),
    extra=st.dictionaries(st.from_regex(r"ce_[a-z][a-z0-9]{0,9}", fullmatch=True), texts, max_size=3),
)
def test_any_row_comes_back(
    read: Reader,
    body: Any,
    queue: str,
    key: str | None,
    identity: str,
    age: timedelta,
    extra: dict[str, str],
) -> None:
    special = {"ce_time", "ce_data", "ce_datacontenttype", "ce_partitionkey"}
    extra = {name: value for name, value in extra.items() if name not in special}
    payload = json.dumps(body).encode()
    created = CREATED - age
    event = read(row(payload, queue=queue, key=key, idempotency_key=identity, created_at=created, headers=JSON | extra))
    assert (event.get_id(), event.get_specversion(), event.get_time()) == (identity, "1.0", created)
    assert event.get_type() == extra.get("ce_type", queue)
    assert event.get_extension("partitionkey") == key
    assert event.get_data() == body
    for name, value in extra.items():
        if name not in {"ce_id", "ce_specversion"}:
            assert event.get_attributes()[name.removeprefix("ce_")] == value


@READERS
@given(payload=st.binary(min_size=1))
def test_bytes_stay_bytes(read: Reader, payload: bytes) -> None:
    event = read(row(payload, headers={"content-type": "application/octet-stream"}))
    data = event.get_data()
    assert (data.encode() if isinstance(data, str) else data) == payload

"""What OpenTelemetry is told: the instruments of Prometheus under their dotted names, and the four standard ones."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from faststream.kafka import KafkaBroker, TestKafkaBroker
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import NoRetry, OutboxBroker, TestOutboxBroker, make_outbox_table
from faststream_outbox.metrics.instruments import ALL, Kind
from faststream_outbox.opentelemetry import OutboxMetrics

NO_SESSION: Any = None
Points = Mapping[str, Mapping[frozenset[tuple[str, Any]], Any]]


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def metrics(reader: InMemoryMetricReader) -> OutboxMetrics:
    return OutboxMetrics(meter_provider=MeterProvider([reader]), refresh_seconds=0.05)


@pytest.fixture
def points(reader: InMemoryMetricReader) -> Callable[[], Points]:
    def collect() -> Points:
        data = reader.get_metrics_data()
        found: dict[str, dict[frozenset[tuple[str, Any]], Any]] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        found.setdefault(metric.name, {})[frozenset((point.attributes or {}).items())] = point
        return found

    return collect


def named(**attributes: Any) -> frozenset[tuple[str, Any]]:
    return frozenset((name.replace("_", "."), value) for name, value in attributes.items())


async def test_a_broker_tells_all(metrics: OutboxMetrics, points: Callable[[], Points]) -> None:
    engine = create_async_engine("postgresql+asyncpg://database.invalid/shop")
    broker = OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), logger=None, metrics=metrics)
    kafka = KafkaBroker(acks="all", logger=None)
    broker.forwarder("orders", to=kafka.publisher("orders.v1"), name="to-kafka")

    @broker.subscriber("mails", retry_strategy=NoRetry())
    async def handle(body: str) -> None:
        if body == "bad":
            raise ValueError(body)

    async with TestOutboxBroker(broker, run_loops=True), TestKafkaBroker(kafka):
        await broker.publish("a", queue="orders", session=NO_SESSION)
        for body in ("good", "bad"):
            await broker.publish(body, queue="mails", session=NO_SESSION)
        await broker.wait_until_drained(timeout=5)
        found = points()
    outbox = {"outbox_name": "outbox"}
    assert found["outbox.published"][named(**outbox, outbox_queue="mails")].value == 2
    assert found["outbox.outcomes"][named(**outbox, outbox_queue="mails", outbox_outcome="dead")].value == 1
    assert found["outbox.commit_to_ack"][named(**outbox, outbox_queue="orders")].count == 1
    assert found["outbox.database_up"][named(**outbox)].value == 1.0
    state = named(**outbox, outbox_forwarder="to-kafka", outbox_state="flowing")
    assert found["outbox.forwarder_state"][state].value == 1.0

    process = {
        "messaging_system": "outbox",
        "messaging_operation_name": "process",
        "messaging_destination_name": "mails",
    }
    assert found["messaging.process.duration"][named(**process)].count == 1
    assert found["messaging.process.duration"][named(**process, error_type="dead")].count == 1
    send = {"messaging_operation_name": "send", "messaging_operation_type": "send"}
    sent = named(messaging_system="kafka", messaging_destination_name="orders.v1", **send)
    assert found["messaging.client.sent.messages"][sent].value == 1
    assert found["messaging.client.operation.duration"][sent].count == 1
    claim = {"messaging_system": "outbox", "messaging_operation_name": "claim", "messaging_destination_name": "mails"}
    assert found["messaging.client.consumed.messages"][named(**claim)].value == 2


def test_all_instruments_are_made(metrics: OutboxMetrics, points: Callable[[], Points]) -> None:
    for each in ALL:
        labels = ("outbox", *(f"a {name}" for name in each.labels))
        if each.kind is Kind.COUNTER:
            metrics._sink.add(each, labels, 1)
        elif each.kind is Kind.HISTOGRAM:
            metrics._sink.observe(each, labels, [1.0, 2.0])
    found = points()
    assert {each.dotted for each in ALL if each.kind is not Kind.GAUGE} == {*found}
    [point] = found["outbox.commit_to_ack"].values()
    assert (point.count, point.sum, point.explicit_bounds[-1]) == (2, 3.0, 3600.0)

"""A handler runs in a span that continues the trace of its message."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faststream import AckPolicy
from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import NoRetry, OutboxBroker, TestOutboxBroker, make_outbox_table
from faststream_outbox._values.outcome import DELIVERED
from faststream_outbox.opentelemetry import OutboxTelemetryMiddleware
from faststream_outbox.subscriber.tracing import HandlingSpan
from tests.conftest import PASSWORD
from tests.rows import make_row

NO_SESSION: Any = None
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
SECRET = "s3cret-text"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


@pytest.fixture
def make_broker() -> Callable[..., OutboxBroker]:
    engine = create_async_engine(f"postgresql+asyncpg://user:{PASSWORD}@database.invalid:5433/shop")
    return lambda **options: OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), logger=None, **options)


async def run(broker: OutboxBroker, **options: Any) -> None:
    """Publish one message, and return when its outcome is there."""
    async with TestOutboxBroker(broker, run_loops=True):
        await broker.publish(SECRET, queue="orders", session=NO_SESSION, **options)
        await broker.wait_until_drained(timeout=5)


async def test_a_handler_continues_the_trace_of_its_message(
    make_broker: Callable[..., OutboxBroker], exporter: InMemorySpanExporter
) -> None:
    broker = make_broker()
    seen: list[Any] = []

    @broker.subscriber("orders")
    async def handle(body: str) -> None:
        seen.append((trace.get_current_span().get_span_context(), baggage.get_baggage("tenant")))
        with trace.get_tracer("app").start_as_current_span("work"):
            pass

    headers = {"traceparent": TRACEPARENT, "baggage": "tenant=seven"}
    await run(broker, headers=headers, key="customer-7", idempotency_key="m-1", correlation_id="c-1")
    work, span = exporter.get_finished_spans()
    assert (span.name, span.kind) == ("process orders", SpanKind.CONSUMER)
    assert span.context.trace_id == int(TRACE_ID, 16) == work.context.trace_id
    assert span.parent is not None
    assert span.parent.span_id == int("00f067aa0ba902b7", 16)
    assert work.parent is not None
    assert work.parent.span_id == span.context.span_id
    assert seen == [(span.context, "seven")]
    assert dict(span.attributes or {}) == {
        "messaging.system": "outbox",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "orders",
        "messaging.message.id": "m-1",
        "messaging.message.body.size": len(SECRET),
        "messaging.message.conversation_id": "c-1",
        "outbox.message.key": "customer-7",
        "outbox.message.deliveries": 1,
        "server.address": "database.invalid",
        "server.port": 5433,
    }
    assert span.status.status_code is StatusCode.UNSET
    assert not trace.get_current_span().get_span_context().is_valid


def test_after_a_handler_its_span_is_no_longer_current(exporter: InMemorySpanExporter) -> None:
    """A worker goes on with the next message."""
    span = HandlingSpan.begin(make_row(), {})
    assert span is not None
    assert trace.get_current_span().get_span_context().is_valid
    span.end(DELIVERED, None)
    assert not trace.get_current_span().get_span_context().is_valid


async def test_a_message_of_a_handler_is_in_the_same_trace(
    make_broker: Callable[..., OutboxBroker], exporter: InMemorySpanExporter
) -> None:
    broker = make_broker()

    @broker.subscriber("orders")
    async def handle(body: str) -> None:
        await broker.publish(body, queue="shipments", session=NO_SESSION)

    @broker.subscriber("shipments")
    async def ship(body: str) -> None: ...

    await run(broker, headers={"traceparent": TRACEPARENT})
    first, second = exporter.get_finished_spans()
    assert {first.context.trace_id, second.context.trace_id} == {int(TRACE_ID, 16)}
    assert second.parent is not None
    assert second.parent.span_id == first.context.span_id


async def test_a_failure_is_told_without_its_text(
    make_broker: Callable[..., OutboxBroker], exporter: InMemorySpanExporter
) -> None:
    broker = make_broker()

    @broker.subscriber("orders", retry_strategy=NoRetry())
    async def handle(body: str) -> None:
        raise LookupError(SECRET)

    await run(broker)
    [span] = exporter.get_finished_spans()
    assert span.parent is None, "a message without a trace begins one"
    assert (span.status.status_code, span.status.description) == (
        StatusCode.ERROR,
        "it is a dead letter: retries_exhausted",
    )
    assert (span.attributes or {})["error.type"] == "LookupError"
    assert SECRET not in span.to_json()


async def test_a_rejected_message_is_an_error_too(
    make_broker: Callable[..., OutboxBroker], exporter: InMemorySpanExporter
) -> None:
    broker = make_broker()

    @broker.subscriber("orders", ack_policy=AckPolicy.REJECT_ON_ERROR)
    async def handle(body: str) -> None:
        raise LookupError(SECRET)

    await run(broker)
    [span] = exporter.get_finished_spans()
    assert span.status.description == "it is a dead letter: rejected"


async def test_faststreams_middleware_makes_the_spans_where_it_is_used(
    make_broker: Callable[..., OutboxBroker], exporter: InMemorySpanExporter
) -> None:
    broker = make_broker(middlewares=[OutboxTelemetryMiddleware()])

    @broker.subscriber("orders")
    async def handle(body: str) -> None: ...

    await run(broker)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert {*spans} == {"orders create", "orders publish", "orders process"}
    process = spans["orders process"]
    assert process.context.trace_id == spans["orders create"].context.trace_id, "the trace goes on"
    assert (process.attributes or {})["messaging.system"] == "outbox"


async def test_a_tracer_that_fails_costs_no_message(
    make_broker: Callable[..., OutboxBroker], exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = make_broker()
    handled: list[str] = []

    @broker.subscriber("orders")
    async def handle(body: str) -> None:
        handled.append(body)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no spans today")

    monkeypatch.setattr(TracerProvider, "get_tracer", fail)
    await run(broker)
    assert handled == [SECRET]


def test_who_does_not_trace_does_not_import_it() -> None:
    program = (
        "import sys, faststream_outbox.subscriber.tracing as tracing\n"
        "from tests.rows import make_row\n"
        "assert tracing.HandlingSpan.begin(make_row(), {}) is None\n"
        "assert 'opentelemetry.trace' not in sys.modules, 'imported'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

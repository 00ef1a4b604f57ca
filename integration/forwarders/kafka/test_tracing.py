"""One trace from the HTTP request that publishes to whoever consumes from Kafka, and a span for the hand-over."""

from typing import Any

import pytest
from fastapi import FastAPI
from faststream.kafka import KafkaBroker
from httpx import ASGITransport, AsyncClient
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox.fastapi import OutboxBroker, OutboxRouter
from integration.broker.observing import eventually
from integration.destinations.kafka import KafkaBox


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


async def test_from_a_request_to_a_consumer(
    *, engine: AsyncEngine, outbox_table: SqlTable, kafka: KafkaBroker, topic: KafkaBox, exporter: InMemorySpanExporter
) -> None:
    tracer = trace.get_tracer("shop")
    router = OutboxRouter(engine, outbox_table=outbox_table, logger=None, schema_url=None)
    router.forwarder("orders", to=kafka.publisher(topic.name), lanes=1)

    @router.post("/orders")
    async def create(number: int, broker: OutboxBroker) -> None:
        with tracer.start_as_current_span("create order", attributes={"number": number}):
            async with engine.begin() as connection:
                await broker.publish(number, queue="orders", key="k", session=connection)

    app = FastAPI()
    app.include_router(router)
    async with (
        AsyncClient(transport=ASGITransport(app), base_url="http://shop") as client,
        app.router.lifespan_context(app),
    ):
        for number in range(3):
            assert (await client.post(f"/orders?number={number}")).status_code == 200
        records = await topic.received(3)
        # A topic that is just made may have no leader yet: such a hand-over is a span too, with an error.
        sending = await eventually(lambda: _sending(exporter, 3))

    spans = exporter.get_finished_spans()
    requests = {span.attributes["number"]: span.context for span in spans if span.name == "create order"}
    for record in records:
        carried = trace.get_current_span(propagate.extract(record.headers)).get_span_context()
        request = requests[int(record.body)]
        assert (carried.trace_id, carried.span_id) == (request.trace_id, request.span_id)
    assert {link.context.span_id for span in sending for link in span.links} == {r.span_id for r in requests.values()}
    assert sum(len(span.links) for span in sending) == 3, "each request is a span of its own"
    for span in sending:
        assert (span.name, span.kind, span.parent) == (f"send {topic.name}", SpanKind.CLIENT, None)
        assert span.attributes["messaging.system"] == "kafka"


def _sending(exporter: InMemorySpanExporter, rows: int) -> list[Any]:
    spans = [span for span in exporter.get_finished_spans() if span.name.startswith("send ")]
    without_error = [span for span in spans if span.status.status_code is StatusCode.UNSET]
    counts = [(span.attributes or {})["messaging.batch.message_count"] for span in without_error]
    return without_error if sum(counts) == rows else []

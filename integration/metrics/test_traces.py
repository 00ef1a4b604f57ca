"""One trace from a request to the handler, and hand-overs linked to it, through a real table and a real Redis."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from faststream.redis import RedisBroker
from opentelemetry import trace
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from sqlalchemy import event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from faststream_outbox.opentelemetry import OutboxTelemetryMiddleware
from integration.broker.conftest import MakeBroker
from integration.broker.observing import eventually
from integration.servers.redis import RedisServer


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


async def span_named(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    found: ReadableSpan = await eventually(
        lambda: next((span for span in exporter.get_finished_spans() if span.name == name), None)
    )
    return found


async def test_from_the_request_to_the_end(
    make_broker: MakeBroker,
    session: AsyncSession,
    exporter: InMemorySpanExporter,
    database_url: str,
    redis_server: RedisServer,
    redis_key: str,
) -> None:
    broker = make_broker()
    redis = RedisBroker(redis_server.url, logger=None)
    broker.forwarder("orders", to=redis.publisher(stream=redis_key), name="to-redis", lanes=1)

    @broker.subscriber("mails")
    async def handle(body: str) -> None: ...

    with trace.get_tracer("app").start_as_current_span("POST /orders") as request:
        await broker.publish("a", queue="orders", session=session, key="customer-7", idempotency_key="m-1")
        await broker.publish("b", queue="mails", session=session)
    await session.commit()
    await broker.start()

    handled = await span_named(exporter, "process mails")
    ids = request.get_span_context()
    assert handled.parent is not None
    assert (handled.context.trace_id, handled.parent.span_id) == (ids.trace_id, ids.span_id)
    database = make_url(database_url)
    assert (handled.attributes or {})["server.address"] == database.host
    assert (handled.attributes or {})["server.port"] == database.port

    sent = await span_named(exporter, f"send {redis_key}")
    assert (sent.kind, sent.parent) == (SpanKind.CLIENT, None)
    [link] = sent.links
    assert (link.context.trace_id, link.context.span_id) == (ids.trace_id, ids.span_id)
    assert dict(link.attributes or {}) == {"messaging.message.id": "m-1", "outbox.message.key": "customer-7"}
    address = urlsplit(redis_server.url)
    attributes = dict(sent.attributes or {})
    assert (attributes["server.address"], attributes["server.port"]) == (address.hostname, address.port)
    assert attributes["messaging.client.id"] == "to-redis-0"
    assert attributes["messaging.system"] == "redis"


async def test_with_faststreams_middleware(
    make_broker: MakeBroker, session: AsyncSession, exporter: InMemorySpanExporter
) -> None:
    broker = make_broker(middlewares=[OutboxTelemetryMiddleware()])

    @broker.subscriber("mails")
    async def handle(body: str) -> None: ...

    await broker.publish("b", queue="mails", session=session)
    await session.commit()
    await broker.start()
    processed, created = await span_named(exporter, "mails process"), await span_named(exporter, "mails create")
    assert processed.context.trace_id == created.context.trace_id
    assert [span.name for span in exporter.get_finished_spans() if span.kind is SpanKind.CONSUMER] == ["mails process"]


async def test_an_instrumentation_sees_what_statements_do(
    make_broker: MakeBroker, session: AsyncSession, engine: AsyncEngine, exporter: InMemorySpanExporter
) -> None:
    SQLAlchemyInstrumentor().instrument(skip_dep_check=True, engine=engine.sync_engine)
    try:
        broker = make_broker()

        @broker.subscriber("mails")
        async def handle(body: str) -> None: ...

        await broker.start()
        await broker.publish("b", queue="mails", session=session)
        await session.commit()
        await span_named(exporter, "process mails")
        statements = {span.name.split()[0] for span in exporter.get_finished_spans() if span.kind is SpanKind.CLIENT}
        assert {"INSERT", "WITH"} <= statements
        assert statements <= {"INSERT", "WITH", "SELECT", "UPDATE", "DELETE", "SHOW", "connect"}
    finally:
        SQLAlchemyInstrumentor().uninstrument()


async def test_statements_have_names_where_somebody_listens(
    make_broker: MakeBroker, session: AsyncSession, engine: AsyncEngine
) -> None:
    """As the instrumentation of SQLAlchemy does."""
    heard: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *arguments: heard.append(arguments[2]))
    broker = make_broker()

    @broker.subscriber("mails")
    async def handle(body: str) -> None: ...

    await broker.start()
    await broker.publish("b", queue="mails", session=session)
    await session.commit()
    await eventually(lambda: any("outbox claim" in each for each in heard))
    ours = [each for each in heard if "outbox" in each]
    assert {each.split()[0] for each in ours} == {"/*"}
    assert {"insert_ready", "claim"} <= {each.split()[2] for each in ours}

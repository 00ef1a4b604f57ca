"""A message carries the trace that it was published in, whatever becomes of the trace."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.propagators.textmap import Setter, TextMapPropagator, default_setter
from opentelemetry.sdk.trace import TracerProvider

from faststream_outbox import InvalidMessageError, OutboxBroker, Outgoing, TestOutboxBroker

NO_SESSION: Any = None
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

tracer = TracerProvider().get_tracer("test")


def traceparent(span: trace.Span) -> str:
    ids = span.get_span_context()
    return f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{ids.trace_flags:02x}"


@pytest.fixture
def span() -> Iterator[trace.Span]:
    with tracer.start_as_current_span("POST /orders") as span:
        yield span


async def headers_of(broker: OutboxBroker, way: str = "publish", **options: Any) -> dict[str, str]:
    tester = TestOutboxBroker(broker)
    async with tester:
        match way:
            case "publish":
                await broker.publish("x", queue="orders", session=NO_SESSION, **options)
            case "publish_sync":
                broker.publish_sync("x", queue="orders", session=NO_SESSION, **options)
            case "publish_batch":
                await broker.publish_batch("x", "y", queue="orders", session=NO_SESSION, **options)
    first, *others = [dict(row.headers) for row in tester.store.rows]
    assert all(headers == first for headers in others)
    return {name: value for name, value in first.items() if name not in ("content-type", "correlation_id")}


@pytest.mark.parametrize("way", ["publish", "publish_sync", "publish_batch"])
async def test_the_current_trace_goes_along(broker: OutboxBroker, span: trace.Span, way: str) -> None:
    token = context.attach(baggage.set_baggage("tenant", "7"))
    try:
        headers = await headers_of(broker, way, headers={"x": "y"})
    finally:
        context.detach(token)
    assert headers == {"x": "y", "traceparent": traceparent(span), "baggage": "tenant=7"}


async def test_without_a_span_nothing_is_added(broker: OutboxBroker) -> None:
    assert await headers_of(broker, headers={"x": "y"}) == {"x": "y"}


@pytest.mark.parametrize("name", ["traceparent", "Traceparent"])
async def test_a_traceparent_of_the_caller_stays_alone(broker: OutboxBroker, span: trace.Span, name: str) -> None:
    assert await headers_of(broker, headers={name: TRACEPARENT}) == {name: TRACEPARENT}


async def test_a_traceparent_of_one_message_of_a_batch_stays(broker: OutboxBroker, span: trace.Span) -> None:
    tester = TestOutboxBroker(broker)
    async with tester:
        messages = [Outgoing("x", headers={"traceparent": TRACEPARENT}), "y"]
        await broker.publish_batch(*messages, queue="orders", session=NO_SESSION)
    assert [row.headers["traceparent"] for row in tester.store.rows] == [TRACEPARENT, traceparent(span)]


class Custom(TextMapPropagator):
    """Writes what it is told to, or fails."""

    fields: set[str] = set()  # noqa: RUF012 - the base class has it as a property

    def __init__(self, *, writes: dict[str, Any] | None = None) -> None:
        self.writes = writes

    def extract(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def inject(self, carrier: Any, context: Any = None, setter: Setter[Any] = default_setter) -> None:
        if self.writes is None:
            raise RuntimeError("no propagation today")
        for name, value in self.writes.items():
            setter.set(carrier, name, value)


@pytest.mark.parametrize(
    "writes", [None, {"b3": "x\x00"}, {"outbox-id": "7"}, {"n": 7}, {7: "n"}, {"baggage": "x" * 40_000}], ids=str
)
async def test_what_a_message_cannot_carry_is_left_at_home(
    broker: OutboxBroker, span: trace.Span, monkeypatch: pytest.MonkeyPatch, writes: dict[str, Any] | None
) -> None:
    monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", Custom(writes=writes))
    assert await headers_of(broker, headers={"x": "y"}) == {"x": "y"}


async def test_other_propagators_are_asked_too(
    broker: OutboxBroker, span: trace.Span, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", Custom(writes={"b3": "trace-span-1"}))
    assert await headers_of(broker) == {"b3": "trace-span-1"}
    assert await headers_of(broker, headers={"b3": "mine"}) == {"b3": "mine"}


async def test_bad_input_is_told_as_ever(broker: OutboxBroker, span: trace.Span) -> None:
    with pytest.raises(InvalidMessageError, match=r"headers: .*'outbox-id'"):
        await headers_of(broker, headers={"outbox-id": "7"})
    with pytest.raises(InvalidMessageError, match="headers"):
        await headers_of(broker, headers={7: "x"})


def test_all_of_it_works_without_opentelemetry() -> None:
    program = """
import asyncio, sys
sys.modules["opentelemetry"] = None
from faststream.kafka import KafkaBroker, TestKafkaBroker
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine
from faststream_outbox import OutboxBroker, TestOutboxBroker, make_outbox_table

async def main():
    engine = create_async_engine("postgresql+asyncpg://database.invalid/shop")
    broker = OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), logger=None)
    kafka = KafkaBroker(acks="all")
    broker.forwarder("orders", to=kafka.publisher("orders.v1"))
    arrived = asyncio.Event()

    @kafka.subscriber("orders.v1")
    async def handle(body: str) -> None:
        arrived.set()

    async with TestKafkaBroker(kafka, connect_only=False), TestOutboxBroker(broker, run_loops=True):
        await broker.publish("tea", queue="orders", session=None)
        await asyncio.wait_for(arrived.wait(), 10)
    print("arrived", sys.modules.get("opentelemetry.trace"))

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "arrived None\n", done.stderr

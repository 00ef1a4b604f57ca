"""Spans of hand-overs: what they say, and that nothing hangs on them."""

from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from faststream_outbox._values.outcome import Accepted, Poison, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.tracing import MAX_LINKS, TracedDestination

from .kafka.rows import row

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


class Answering:
    """Gives the answers, or raises the error."""

    def __init__(self) -> None:
        self.answers: Sequence[Verdict] | BaseException = ()
        self.current: list[Any] = []
        self.calls: list[str] = []
        self.is_connected = True

    async def connect(self) -> None:
        self.calls.append("connect")

    async def send(self, parcels: Sequence[Parcel]) -> Sequence[Verdict]:
        self.current.append(trace.get_current_span())
        if isinstance(self.answers, BaseException):
            raise self.answers
        return self.answers or [Accepted()] * len(parcels)

    def finish(self, grace: float) -> None:
        self.calls.append(f"finish {grace}")

    async def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def use_provider(monkeypatch: pytest.MonkeyPatch, exporter: InMemorySpanExporter) -> Any:
    def use(**options: Any) -> TracerProvider:
        provider = TracerProvider(**options)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        return provider

    return use


@pytest.fixture
def inner() -> Answering:
    return Answering()


@pytest.fixture
def destination(inner: Answering) -> TracedDestination:
    return TracedDestination(inner, "rabbit:shop:orders.v1")


def parcels(*traceparents: str | None) -> list[Parcel]:
    return [Parcel(row(n, **({} if each is None else {"traceparent": each}))) for n, each in enumerate(traceparents)]


def traceparent(span_id: int) -> str:
    return f"00-{TRACE_ID}-{span_id:016x}-01"


async def test_a_hand_over_is_a_span_with_links_to_publishing(
    use_provider: Any, exporter: InMemorySpanExporter, destination: TracedDestination
) -> None:
    tracer = use_provider().get_tracer("app")
    with tracer.start_as_current_span("the application starts"):
        sent = parcels(traceparent(1), None, traceparent(2), traceparent(1), "nonsense")
        assert await destination.send(sent) == [Accepted()] * 5
        [span] = exporter.get_finished_spans()
    assert (span.name, span.kind, span.parent) == ("send shop:orders.v1", SpanKind.CLIENT, None)
    assert dict(span.attributes or {}) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "shop:orders.v1",
        "messaging.batch.message_count": 5,
    }
    assert span.status.status_code is StatusCode.UNSET
    links = [(link.context.span_id, dict(link.attributes or {})) for link in span.links]
    assert [span_id for span_id, _ in links] == [1, 0, 2, 1, 0], "a message without a trace is named all the same"
    assert [names["messaging.message.id"] for _, names in links] == [each.row.idempotency_key for each in sent]
    assert {link.context.trace_id for link in span.links} == {int(TRACE_ID, 16), 0}


@pytest.mark.parametrize(
    ("name", "attribute"), [("kafka:a", "messaging.kafka.message.key"), ("redis:a", "outbox.message.key")]
)
async def test_links_name_the_keys_of_messages(
    use_provider: Any, exporter: InMemorySpanExporter, inner: Answering, name: str, attribute: str
) -> None:
    use_provider()
    server = {"server.address": "broker", "server.port": 9092}
    destination = TracedDestination(inner, name, client="orders-1", server=server)
    await destination.send([Parcel(row(1)._replace(key=None)), Parcel(row(2)._replace(key="customer-7"))])
    [span] = exporter.get_finished_spans()
    names = [dict(link.attributes or {}) for link in span.links]
    assert [each.get(attribute) for each in names] == [None, "customer-7"]
    attributes = dict(span.attributes or {})
    assert (attributes["messaging.client.id"], attributes["server.address"]) == ("orders-1", "broker")
    assert attributes["server.port"] == 9092


async def test_the_number_of_links_is_bounded(
    use_provider: Any, exporter: InMemorySpanExporter, destination: TracedDestination
) -> None:
    use_provider()
    await destination.send(parcels(*(traceparent(n) for n in range(1, 500))))
    [span] = exporter.get_finished_spans()
    assert len(span.links) == MAX_LINKS


async def test_what_is_not_accepted_makes_it_an_error(
    use_provider: Any, exporter: InMemorySpanExporter, inner: Answering, destination: TracedDestination
) -> None:
    use_provider()
    inner.answers = [Accepted(), Unsent(), Poison("invalid", ValueError("x"))]
    assert await destination.send(parcels(None, None, None)) == inner.answers
    [span] = exporter.get_finished_spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "2 of 3 not accepted")
    assert (span.attributes or {})["error.type"] == "ValueError"


async def test_a_hand_over_that_is_cut_off_ends_its_span(
    use_provider: Any, exporter: InMemorySpanExporter, inner: Answering, destination: TracedDestination
) -> None:
    use_provider()
    inner.answers = TimeoutError()
    with pytest.raises(TimeoutError):
        await destination.send(parcels(None))
    [span] = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "TimeoutError"


async def test_the_span_is_not_current_while_the_client_sends(
    use_provider: Any, inner: Answering, destination: TracedDestination
) -> None:
    use_provider()
    await destination.send(parcels(None))
    assert inner.current == [trace.INVALID_SPAN]


async def test_a_span_that_is_not_sampled_looks_at_no_row(
    use_provider: Any, exporter: InMemorySpanExporter, destination: TracedDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_provider(sampler=ALWAYS_OFF)
    monkeypatch.setattr("faststream_outbox.forwarders.tracing._links", None)
    assert await destination.send(parcels(traceparent(1))) == [Accepted()]
    assert exporter.get_finished_spans() == ()


async def test_without_a_provider_there_is_no_span(
    destination: TracedDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "get_tracer", None)
    assert await destination.send(parcels(traceparent(1))) == [Accepted()]


class Failing(SpanProcessor):
    def __init__(self, at: str) -> None:
        self.at = at

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.at == "start":
            raise RuntimeError(self.at)

    def on_end(self, span: Any) -> None:
        if self.at == "end":
            raise RuntimeError(self.at)


@pytest.mark.parametrize("at", ["start", "end"])
async def test_rows_are_sent_though_tracing_fails(use_provider: Any, destination: TracedDestination, at: str) -> None:
    use_provider().add_span_processor(Failing(at))
    assert await destination.send(parcels(None)) == [Accepted()]


async def test_all_else_goes_to_the_destination(inner: Answering, destination: TracedDestination) -> None:
    await destination.connect()
    destination.finish(1.0)
    await destination.close()
    assert inner.calls == ["connect", "finish 1.0", "close"]


async def test_a_propagator_that_fails_costs_links_and_no_span(
    use_provider: Any, exporter: InMemorySpanExporter, destination: TracedDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_provider()

    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("a malformed header")

    monkeypatch.setattr("opentelemetry.propagate.extract", fail)
    assert await destination.send(parcels(traceparent(1))) == [Accepted()]
    [span] = exporter.get_finished_spans()
    assert not span.links

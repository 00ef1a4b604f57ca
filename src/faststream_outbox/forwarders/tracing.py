"""A span of OpenTelemetry for each hand-over to a destination."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from faststream_outbox._values.outcome import Accepted, Poison, Refused, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.kinds import LaneDestination

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext

MAX_LINKS = 128
"""What OpenTelemetry's SDKs keep by default: OTEL_SPAN_LINK_COUNT_LIMIT, "SDK environment variables"."""

SYSTEMS = {"rabbit": "rabbitmq", "confluent": "kafka"}
"""Names of the semantic conventions where they are not FastStream's, see ``messaging.system``."""


class TracedDestination:
    """Tells the application's tracer of each hand-over, if there is a tracer.

    A span ``send <address>`` of the kind PRODUCER, with the attributes of OpenTelemetry's semantic conventions for
    messaging, and linked to the spans in which its rows were published. It is the root of a trace of its own, since a
    hand-over carries rows of many traces; what a consumer gets is the trace of publishing, unchanged.

    Args:
        destination: Where rows are sent.
        name: Kind and address, as in ``kafka:orders.v1``.
    """

    def __init__(self, destination: LaneDestination, name: str) -> None:
        self._destination = destination
        kind, _, address = name.partition(":")
        self._system = SYSTEMS.get(kind, kind)
        self._address = address

    async def connect(self) -> None:
        await self._destination.connect()

    async def send(self, parcels: Sequence[Parcel]) -> Sequence[Verdict]:
        span = self._begin(parcels)
        if span is None:
            return await self._destination.send(parcels)
        try:
            verdicts = await self._destination.send(parcels)
        except BaseException as error:
            _end(span, f"none of {len(parcels)} is known to be accepted", error)
            raise
        accepted = sum(isinstance(verdict, Accepted) for verdict in verdicts)
        problem = "" if accepted == len(parcels) else f"{len(parcels) - accepted} of {len(parcels)} not accepted"
        _end(span, problem, _first_error(verdicts))
        return verdicts

    def finish(self, grace: float) -> None:
        self._destination.finish(grace)

    async def close(self) -> None:
        await self._destination.close()

    def _begin(self, parcels: Sequence[Parcel]) -> "Span | None":
        # Where nobody has imported OpenTelemetry, nobody has set up a tracer.
        trace = sys.modules.get("opentelemetry.trace")
        if trace is None:
            return None
        try:
            return self._start_span(trace, parcels)
        except Exception:  # noqa: BLE001 - of the application's sampler or span processor; rows are worth more
            return None

    def _start_span(self, trace: Any, parcels: Sequence[Parcel]) -> "Span | None":
        from opentelemetry.context import Context  # noqa: PLC0415

        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider):
            return None
        span: Span = trace.get_tracer("faststream_outbox").start_span(
            f"send {self._address}",
            # Whatever was current where the broker was started has nothing to do with these rows.
            context=Context(),
            kind=trace.SpanKind.PRODUCER,
            attributes={
                "messaging.system": self._system,
                "messaging.operation.name": "send",
                "messaging.operation.type": "send",
                "messaging.destination.name": self._address,
                "messaging.batch.message_count": len(parcels),
            },
        )
        # It is not made the current one: an instrumented client would write its own trace into what is sent.
        if span.is_recording():
            for publishing in _publishing_spans(parcels):
                span.add_link(publishing)
        return span


def _publishing_spans(parcels: Sequence[Parcel]) -> "list[SpanContext]":
    """Find the spans that rows were published in, each once, in the form of the application's propagators."""
    from opentelemetry import propagate, trace  # noqa: PLC0415
    from opentelemetry.context import Context  # noqa: PLC0415

    fields = propagate.get_global_textmap().fields
    found: dict[tuple[int, int], SpanContext] = {}
    # The rows of one request share their headers; to read them once for all is the cheaper part.
    for carrier in {tuple((name, h[name]) for name in fields if name in h) for h in (p.row.headers for p in parcels)}:
        publishing = trace.get_current_span(propagate.extract(dict(carrier), Context())).get_span_context()
        if publishing.is_valid:
            found.setdefault((publishing.trace_id, publishing.span_id), publishing)
        if len(found) == MAX_LINKS:
            break
    return list(found.values())


def _first_error(verdicts: Sequence[Verdict]) -> BaseException | None:
    failures = (verdict.exception for verdict in verdicts if isinstance(verdict, Refused | Poison | Unsent))
    return next((exception for exception in failures if exception is not None), None)


def _end(span: "Span", problem: str, error: BaseException | None) -> None:
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

    try:
        if problem:
            span.set_status(Status(StatusCode.ERROR, problem))
        if error is not None:
            span.set_attribute("error.type", type(error).__qualname__)
        span.end()
    except Exception:  # noqa: BLE001 - of the application's span processor; the rows are sent
        return

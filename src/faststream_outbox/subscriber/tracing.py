"""A span of OpenTelemetry around each run of a handler, in the trace that its message carries."""

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from faststream_outbox._values.copies import origin_of
from faststream_outbox._values.outcome import Dead, Outcome, Released, Retry
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.wire import CORRELATION_ID
from faststream_outbox.tracing import SYSTEM, application_tracer, end_span

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Span


def makes_spans(middlewares: Iterable[Any]) -> bool:
    """Return whether a middleware is FastStream's for OpenTelemetry, which makes spans of handlers by itself."""
    module = sys.modules.get("faststream.opentelemetry.middleware")
    return module is not None and any(isinstance(each, module.TelemetryMiddleware) for each in middlewares)


class HandlingSpan:
    """The span of one run, which is the current one while the handler runs.

    ``process <queue>`` of the kind CONSUMER, as OpenTelemetry's semantic conventions for messaging have it. Its parent
    is the span in which the message was published.
    """

    def __init__(self, span: "Span", token: "Token[Context]") -> None:
        self._span = span
        self._token = token

    @classmethod
    def begin(cls, row: OutboxRow, server: Mapping[str, str | int]) -> "HandlingSpan | None":
        """Return a span that has begun; None where the application has no tracer, or its tracer fails.

        Args:
            row: Whose handler begins.
            server: Attributes of the database.
        """
        try:
            tracer = application_tracer()
            if tracer is None:
                return None
            from opentelemetry import context, propagate, trace  # noqa: PLC0415 - only who traces has it

            parent = propagate.extract(row.headers, context.Context())
            queue = origin_of(row.queue)
            span = tracer.start_span(
                f"process {queue}",
                context=parent,
                kind=trace.SpanKind.CONSUMER,
                attributes=_attributes(row, queue, server),
            )
            return cls(span, context.attach(trace.set_span_in_context(span, parent)))
        except Exception:  # noqa: BLE001 - of the application's propagator, sampler or span processor
            return None

    def end(self, outcome: Outcome | None, error: BaseException | None) -> None:
        """End it with what became of the row; the span that was current before is so again.

        Args:
            outcome: None where the handler was cut off.
            error: What the handler raised.
        """
        from opentelemetry import context  # noqa: PLC0415 - as above

        context.detach(self._token)
        problem = None
        match outcome:
            case Retry():
                problem = "it is tried again"
            case Dead(reason):
                problem = f"it is a dead letter: {reason}"
            case None | Released():
                problem = "it was cut off"
        end_span(self._span, problem=problem, error=error)


def _attributes(row: OutboxRow, queue: str, server: Mapping[str, str | int]) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "messaging.system": SYSTEM,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": queue,
        "messaging.message.id": row.idempotency_key,
        "messaging.message.body.size": len(row.payload),
        "outbox.message.deliveries": row.deliveries_count,
        **server,
    }
    if row.key is not None:
        attributes["outbox.message.key"] = row.key
    if (correlation_id := row.headers.get(CORRELATION_ID)) is not None:
        attributes["messaging.message.conversation_id"] = correlation_id
    return attributes

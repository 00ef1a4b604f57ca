"""The application's tracer of OpenTelemetry, if it has one. No span may cost a message."""

import sys
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.trace import Span, Tracer

SYSTEM = "outbox"
"""What OpenTelemetry is told as ``messaging.system`` of queues in the table."""


def application_tracer() -> "Tracer | None":
    """Return the tracer that the application has set up; None where it has not."""
    # Where nobody has imported OpenTelemetry, nobody has set up a tracer.
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    tracer: Tracer = trace.get_tracer("faststream_outbox")
    return tracer


def server_attributes(addresses: "Sequence[str]") -> "Mapping[str, str | int]":
    """Return ``server.address`` and ``server.port`` of the one address that is given.

    Which of several nodes takes a message is not known where it is sent, so several have none.
    """
    if len(addresses) != 1:
        return {}
    address = addresses[0]
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        port = parts.port
    except ValueError:
        return {}
    if not parts.hostname:
        return {}
    return {"server.address": parts.hostname} | ({} if port is None else {"server.port": port})


def end_span(span: "Span", *, problem: str | None = None, error: BaseException | None = None) -> None:
    """End a span, as an error if there was a problem. Texts of errors are not told: they may quote a message.

    Args:
        span: To be ended.
        problem: In words.
        error: What was raised, of which the type is told.
    """
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - only who traces has it

    # What fails is of the application's span processor; the messages are settled.
    with suppress(Exception):
        if problem:
            span.set_status(Status(StatusCode.ERROR, problem))
        if error is not None:
            span.set_attribute("error.type", type(error).__qualname__)
    with suppress(Exception):
        span.end()

"""Lets a message carry the trace in which it was published."""

import sys
from collections.abc import Mapping
from typing import Any

TRACEPARENT = "traceparent"
"""W3C Trace Context, https://www.w3.org/TR/trace-context/#traceparent-header."""


def current_trace_headers() -> Mapping[str, str]:
    """Return the headers by which a consumer continues the current trace; none without a trace.

    They are what the application's propagators write, as in ``traceparent``, ``tracestate`` and ``baggage``. Never
    raises: a message is worth more than its trace.
    """
    # Where nobody has imported OpenTelemetry there is no trace, and importing it would only cost time.
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return {}
    carrier: dict[str, str] = {}
    try:
        if trace.get_current_span().get_span_context().is_valid:
            from opentelemetry import propagate  # noqa: PLC0415

            propagate.inject(carrier)
    except Exception:  # noqa: BLE001 - of a propagator, which may be the application's own
        return {}
    return carrier


def with_trace(headers: Mapping[Any, str], trace: Mapping[str, str]) -> Mapping[Any, str]:
    """Add a trace's headers to a message's, which stay as they are; nothing is added to a message with a trace."""
    if not trace or any(isinstance(name, str) and name.lower() == TRACEPARENT for name in headers):
        return headers
    return {**trace, **headers}

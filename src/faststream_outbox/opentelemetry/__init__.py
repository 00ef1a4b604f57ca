"""Metrics for OpenTelemetry, and FastStream's own OpenTelemetry middleware for this broker.

Needs the extra ``otel``. Spans need nothing of this: see ``docs/observing.md``.
"""

from importlib.util import find_spec

if find_spec("opentelemetry") is None:
    msg = (
        "faststream_outbox.opentelemetry needs the package opentelemetry-api, which is not installed: install it, or "
        "this package's checkout or wheel with its extra otel"
    )
    raise ImportError(msg, name="opentelemetry")

from faststream_outbox.opentelemetry.metrics import OutboxMetrics
from faststream_outbox.opentelemetry.middleware import OutboxTelemetryMiddleware

__all__ = ("OutboxMetrics", "OutboxTelemetryMiddleware")

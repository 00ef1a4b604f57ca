"""Metrics for Prometheus, and FastStream's own Prometheus middleware for this broker.

Needs the extra ``prometheus``.
"""

from importlib.util import find_spec

if find_spec("prometheus_client") is None:
    msg = (
        "faststream_outbox.prometheus needs the package prometheus-client, which is not installed: install it, or this "
        "package's checkout or wheel with its extra prometheus"
    )
    raise ImportError(msg, name="prometheus_client")

from faststream_outbox.prometheus.metrics import OutboxMetrics
from faststream_outbox.prometheus.middleware import OutboxPrometheusMiddleware

__all__ = ("OutboxMetrics", "OutboxPrometheusMiddleware")

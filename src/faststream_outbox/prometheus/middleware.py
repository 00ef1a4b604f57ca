"""FastStream's Prometheus middleware, with what it must know of this broker."""

from typing import Any

from faststream.message import StreamMessage
from faststream.prometheus import ConsumeAttrs, MetricsSettingsProvider
from faststream.prometheus.middleware import PrometheusMiddleware
from prometheus_client import CollectorRegistry

from faststream_outbox.message import Delivery, OutboxMessage
from faststream_outbox.response import OutboxPublishCommand

SYSTEM = "outbox"
"""What FastStream's metrics have in the label ``broker``."""


class _OutboxSettings(MetricsSettingsProvider[Delivery, OutboxPublishCommand]):
    """Names the queue of a message, and of what is published."""

    def __init__(self) -> None:
        self.messaging_system = SYSTEM

    def get_consume_attrs_from_message(self, msg: StreamMessage[Delivery]) -> ConsumeAttrs:
        """Return the queue that a message was published to, and its size."""
        queue = msg.queue if isinstance(msg, OutboxMessage) else msg.raw_message.row.queue
        return {"destination_name": queue, "message_size": len(msg.body), "messages_count": 1}

    def get_publish_destination_name_from_cmd(self, cmd: OutboxPublishCommand) -> str:
        """Return the queue that is published to."""
        return cmd.destination


class OutboxPrometheusMiddleware(PrometheusMiddleware[Delivery, OutboxPublishCommand]):
    """FastStream's metrics of handlers and publishing, as its other brokers have them.

    ``OutboxMetrics`` has more: tables, forwarders, leases, dead letters. Both can be used together.

    Args:
        registry: Where to show them.
        **options: Those of FastStream's ``PrometheusMiddleware``: ``app_name``, ``metrics_prefix``, ``custom_labels``,
            ``received_messages_size_buckets``.

    Example::

        broker = OutboxBroker(engine, outbox_table=table, middlewares=[OutboxPrometheusMiddleware(registry=REGISTRY)])
    """

    def __init__(self, *, registry: CollectorRegistry, **options: Any) -> None:
        super().__init__(settings_provider_factory=lambda _: _OutboxSettings(), registry=registry, **options)

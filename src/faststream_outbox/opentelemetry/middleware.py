"""FastStream's OpenTelemetry middleware, with what it must know of this broker."""

from typing import Any

from faststream.message import StreamMessage
from faststream.opentelemetry import TelemetrySettingsProvider
from faststream.opentelemetry.consts import MESSAGING_DESTINATION_PUBLISH_NAME
from faststream.opentelemetry.middleware import TelemetryMiddleware
from opentelemetry.semconv.trace import SpanAttributes

from faststream_outbox.message import Delivery, OutboxMessage
from faststream_outbox.response import OutboxPublishCommand
from faststream_outbox.tracing import SYSTEM


class _OutboxSettings(TelemetrySettingsProvider[Delivery, OutboxPublishCommand]):
    """Names the queue, and what there is to say of a message."""

    def __init__(self) -> None:
        self.messaging_system = SYSTEM

    def get_consume_attrs_from_message(self, msg: StreamMessage[Delivery]) -> dict[str, Any]:
        """Return the attributes of the span in which a message is handled."""
        return {
            SpanAttributes.MESSAGING_SYSTEM: self.messaging_system,
            SpanAttributes.MESSAGING_MESSAGE_ID: msg.message_id,
            SpanAttributes.MESSAGING_MESSAGE_CONVERSATION_ID: msg.correlation_id,
            SpanAttributes.MESSAGING_MESSAGE_PAYLOAD_SIZE_BYTES: len(msg.body),
            MESSAGING_DESTINATION_PUBLISH_NAME: self.get_consume_destination_name(msg),
        }

    def get_consume_destination_name(self, msg: StreamMessage[Delivery]) -> str:
        """Return the queue that a message was published to."""
        return msg.queue if isinstance(msg, OutboxMessage) else msg.raw_message.row.queue

    def get_publish_attrs_from_cmd(self, cmd: OutboxPublishCommand) -> dict[str, Any]:
        """Return the attributes of the span in which a message is published."""
        return {
            SpanAttributes.MESSAGING_SYSTEM: self.messaging_system,
            SpanAttributes.MESSAGING_DESTINATION_NAME: cmd.destination,
            **(
                {}
                if cmd.correlation_id is None
                else {SpanAttributes.MESSAGING_MESSAGE_CONVERSATION_ID: cmd.correlation_id}
            ),
        }

    def get_publish_destination_name(self, cmd: OutboxPublishCommand) -> str:
        """Return the queue that is published to."""
        return cmd.destination


class OutboxTelemetryMiddleware(TelemetryMiddleware[OutboxPublishCommand]):
    """FastStream's spans and metrics of handlers and publishing, as its other brokers have them.

    With it, handlers run in its spans, and no longer in those that this package makes by itself.

    Args:
        **options: Those of FastStream's ``TelemetryMiddleware``: ``tracer_provider``, ``meter_provider``, ``meter``,
            ``include_messages_counters``.

    Example::

        broker = OutboxBroker(engine, outbox_table=table, middlewares=[OutboxTelemetryMiddleware()])
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(settings_provider_factory=lambda _: _OutboxSettings(), **options)

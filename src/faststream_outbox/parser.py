"""Between rows and FastStream's messages."""

from typing import Any

from faststream.message import StreamMessage, decode_message

from faststream_outbox._values.wire import CONTENT_TYPE, CORRELATION_ID, wire_headers
from faststream_outbox.message import Delivery, OutboxMessage


class OutboxParser:
    """Makes the message that handlers get out of a delivery."""

    @staticmethod
    async def parse_message(delivery: Delivery) -> OutboxMessage:
        """Return the row's body and headers in the shape that FastStream's consumers know."""
        return message_of(delivery)

    @staticmethod
    async def decode_message(message: StreamMessage[Any]) -> Any:
        """Decode the body by its content type."""
        return decode_message(message)


def message_of(delivery: Delivery) -> OutboxMessage:
    """Return the message of a delivery's row, as local code sees it."""
    row = delivery.row
    headers = wire_headers(row)
    return OutboxMessage(
        raw_message=delivery,
        body=row.payload,
        headers=headers,
        content_type=headers.get(CONTENT_TYPE),
        correlation_id=row.headers.get(CORRELATION_ID),
        message_id=row.idempotency_key,
    )

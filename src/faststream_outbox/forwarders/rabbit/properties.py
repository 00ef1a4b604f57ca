"""The properties of a message, headers among them, as AMQP 0-9-1 writes them."""

import math
from collections.abc import Mapping
from typing import Any

from aiormq import spec
from pamqp.encode import encode_table_value

from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.wire import CONTENT_TYPE, CORRELATION_ID, ROW_KEY, HeadersOf

PERSISTENT = 2
SENDER_SELECTED = ("CC", "BCC")
"""Headers with more routing keys: RabbitMQ's documentation, "Sender-selected Distribution"."""
HEADER_FRAME_OVERHEAD = 20
"""Bytes of a content header frame beside the properties: class, weight and body size, and what encloses a frame."""
MAX_NAME_BYTES = 255


class Properties(spec.Basic.Properties):
    """Properties that are encoded when they are made, once.

    pamqp cuts off header names after 128 bytes, and AMQP allows 255.

    Raises:
        ArithmeticError: One of them cannot be encoded.
        TypeError: One of them cannot be encoded.
        ValueError: One of them cannot be encoded.
    """

    # No ``__slots__``: pamqp goes through those of the class to find the properties.

    def __init__(self, **properties: Any) -> None:
        super().__init__(delivery_mode=PERSISTENT, **properties)
        self._encoded = super().marshal()

    @property
    def frame_size(self) -> int:
        """Bytes of the frame that carries them; RabbitMQ closes the connection over one that is too large."""
        return HEADER_FRAME_OVERHEAD + len(self._encoded)

    def marshal(self) -> bytes:
        return self._encoded

    def encode_property(self, name: str, value: Any) -> bytes:
        if name == "headers":
            return _encode_table(value)
        return super().encode_property(name, value)


def properties_of(
    row: OutboxRow,
    *,
    headers: Mapping[str, Any],
    headers_of: HeadersOf,
    content_type: str | None,
    properties: Mapping[str, Any],
) -> Properties:
    """Put a row's identity and the caller's headers on what all messages have.

    Args:
        row: The row.
        headers: Of every message; the row's own come first.
        headers_of: Gives the row's own.
        content_type: For a row without one.
        properties: Of every message.

    Raises:
        ArithmeticError: One of its headers cannot be encoded.
        TypeError: The same.
        ValueError: The same; or one would send the message to other queues than the publisher's.
    """
    for name in SENDER_SELECTED:
        if name in row.headers:
            msg = f"RabbitMQ reads further routing keys from the header {name!r}, which only the publisher may set"
            raise ValueError(msg)
    its_headers = {**headers, **headers_of(row)}
    if row.key is not None:
        its_headers[ROW_KEY] = row.key
    return Properties(
        headers=its_headers,
        content_type=row.headers.get(CONTENT_TYPE) or content_type or its_headers.get(CONTENT_TYPE),
        correlation_id=row.headers.get(CORRELATION_ID),
        message_id=row.idempotency_key,
        timestamp=row.created_at,
        **properties,
    )


def _encode_table(table: Mapping[str, Any]) -> bytes:
    parts: list[bytes] = []
    for name, value in table.items():
        encoded_name = name.encode()
        if len(encoded_name) > MAX_NAME_BYTES:
            msg = f"a header name has {len(encoded_name)} bytes of UTF-8, the limit is {MAX_NAME_BYTES}"
            raise ValueError(msg)
        parts += (len(encoded_name).to_bytes(1, "big"), encoded_name, _encode_value(name, value))
    encoded = b"".join(parts)
    return len(encoded).to_bytes(4, "big") + encoded


def _encode_value(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        # pamqp can do that too, after it has asked for five other types.
        encoded = value.encode()
        return b"S" + len(encoded).to_bytes(4, "big") + encoded
    if isinstance(value, float) and not math.isfinite(value):
        msg = f"RabbitMQ closes the connection because of the header {name!r}, which is {value}"
        raise ValueError(msg)
    # A stream drops nested values silently, and ends the connection because of some other types.
    if not isinstance(value, int | float) and name not in SENDER_SELECTED:
        msg = f"the header {name!r} must be text, a number, True or False, got {type(value).__name__}"
        raise TypeError(msg)
    return encode_table_value(value)

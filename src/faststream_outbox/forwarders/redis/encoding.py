"""The message as FastStream's Redis subscribers read it, or as fields that any client reads."""

from collections.abc import Mapping
from functools import lru_cache
from struct import Struct, pack

from faststream.redis.parser import BinaryMessageFormatV1, MessageFormat

from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.wire import CORRELATION_ID, ROW_KEY, beside, wire_headers
from faststream_outbox.forwarders.redis.settings import BODY_FIELD

MESSAGE_ID = "message_id"
"""FastStream's parser takes the message's id from there."""

VERSION = 1
PREAMBLE_BYTES = 18
"""Identity, version, and the positions of headers and payload: 8 + 2 + 4 + 4 bytes."""

_length = Struct(">H").pack
"""Writes how many headers there are, or how many bytes a text has."""


async def encode(row: OutboxRow, headers: Mapping[str, str], message_format: type[MessageFormat]) -> bytes:
    """Wrap a row for FastStream's subscribers.

    Args:
        row: To be sent.
        headers: The publisher's, beside the row's own.
        message_format: The publisher's.

    Raises:
        Exception: The format cannot carry the row; FastStream's own carries everything that a row can hold.
    """
    merged = _merged(row, headers) | {MESSAGE_ID: row.idempotency_key}
    if message_format is BinaryMessageFormatV1:
        return _encode_binary(row.payload, merged)
    correlation_id = merged.get(CORRELATION_ID, row.idempotency_key)
    return await message_format.encode(
        message=row.payload, reply_to=None, headers=merged, correlation_id=correlation_id, serializer=None
    )


def fields_of(row: OutboxRow, headers: Mapping[str, str]) -> tuple[bytes, ...]:
    """Return the headers of a row as fields of a stream's entry: names and values in turn, UTF-8.

    Args:
        row: To be sent.
        headers: The publisher's, beside the row's own.

    Raises:
        ValueError: One of them has the name of the field that has the payload.
    """
    merged = _merged(row, headers)
    if BODY_FIELD in merged:
        msg = f"a header {BODY_FIELD!r} cannot stand beside the field of this name, which has the body"
        raise ValueError(msg)
    return tuple(text.encode() for name_and_value in merged.items() for text in name_and_value)


def _merged(row: OutboxRow, headers: Mapping[str, str]) -> dict[str, str]:
    merged = {**headers, **beside(headers, wire_headers)(row)}
    if row.key is not None:
        merged[ROW_KEY] = row.key
    return merged


def _encode_binary(payload: bytes, headers: Mapping[str, str]) -> bytes:
    """Write what ``BinaryMessageFormatV1`` reads.

    Its own writer counts characters where its reader counts bytes: outside ASCII it cuts values short, and everything
    behind them is read from the wrong position.
    """
    parts = [_length(len(headers))]
    for name, value in headers.items():
        text = value.encode()
        parts += (_name(name), _length(len(text)), text)
    block = b"".join(parts)
    start = PREAMBLE_BYTES
    return b"".join((
        BinaryMessageFormatV1.IDENTITY_HEADER,
        pack(">HII", VERSION, start, start + len(block)),
        block,
        payload,
    ))  # fmt: skip


@lru_cache(maxsize=1024)
def _name(name: str) -> bytes:
    """Write the name of a header; there are few, and each is in nearly every message."""
    text = name.encode()
    return _length(len(text)) + text

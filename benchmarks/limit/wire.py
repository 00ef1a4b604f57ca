"""The headers that this project puts on the wire, written by hand."""

import json
from collections.abc import Sequence
from datetime import UTC
from struct import pack
from typing import Any

COLUMNS = "id, queue, key, idempotency_key, payload, headers, created_at"


def headers_of(record: Sequence[Any]) -> dict[str, str]:
    """Give what a record of these columns carries."""
    return {
        **json.loads(record[5]),
        "idempotency-key": record[3],
        "outbox-id": str(record[0]),
        "outbox-queue": record[1],
        "outbox-created-at": record[6].astimezone(UTC).isoformat().replace("+00:00", "Z"),
    }


def envelope_of(record: Sequence[Any]) -> bytes:
    """Give FastStream's binary envelope for Redis."""
    headers = headers_of(record) | {"message_id": record[3]}
    if record[2] is not None:
        headers["outbox-key"] = record[2]
    parts = [pack(">H", len(headers))]
    for name, value in headers.items():
        for text in (name.encode(), value.encode()):
            parts += (pack(">H", len(text)), text)
    block = b"".join(parts)
    return b"".join((b"\x89BIN\x0d\x0a\x1a\x0a", pack(">HII", 1, 18, 18 + len(block)), block, record[4]))

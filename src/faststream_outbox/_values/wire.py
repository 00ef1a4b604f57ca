"""A row as its consumer sees it, here or behind a broker."""

import json
import math
from collections.abc import Callable, Container, Mapping
from datetime import UTC, datetime
from itertools import product
from typing import TypeAlias

from faststream_outbox._values.copies import origin_of
from faststream_outbox._values.row import OutboxRow

IDEMPOTENCY_KEY = "idempotency-key"
ROW_ID = "outbox-id"
QUEUE = "outbox-queue"
CREATED_AT = "outbox-created-at"
ROW_KEY = "outbox-key"

CONTENT_TYPE = "content-type"
JSON = "application/json"
OCTETS = "application/octet-stream"
"""Of bytes about which nobody has said anything."""
CORRELATION_ID = "correlation_id"
MESSAGE_ID = "message_id"
"""FastStream's envelope for Redis carries the idempotency key under it."""

_MAY_BEGIN_JSON = frozenset(bytes((byte,)) for byte in b'{["-0123456789tfnNI \t\r\n\x00\xef\xfe\xff')
"""First bytes of what Python reads as JSON, also in UTF-16 and UTF-32. To try takes 7 µs a row, to look 0.1."""

MOST_BYTES_TRIED = 64 * 1024
"""To try more would hold up the event loop, at each attempt: so much JSON takes a millisecond."""

REPLY_TO = "reply_to"
"""Where FastStream's consumers publish what their handler returns, with their own credentials."""
REPLY_TO_SPELLINGS = frozenset(map("".join, product(*({letter, letter.upper()} for letter in REPLY_TO))))
"""In any case of letters, which some destinations do not keep apart."""

HeadersOf: TypeAlias = Callable[[OutboxRow], dict[str, str]]
"""Gives the headers that a row is sent with."""


class _Rfc3339:
    """Remembers the last time that it wrote: rows of one transaction share theirs, and are sent one after the other.

    To compare costs a twentieth of writing, which is half of what all headers of a row take.
    """

    def __init__(self) -> None:
        self._last: tuple[datetime | None, str] = (None, "")

    def __call__(self, moment: datetime) -> str:
        """Write an aware time as RFC 3339 asks, in UTC."""
        last, text = self._last
        if moment != last:
            text = moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
            self._last = (moment, text)
        return text


rfc3339 = _Rfc3339()


def wire_headers(row: OutboxRow) -> dict[str, str]:
    """Return the caller's headers, and those that carry the row's identity. Every consumer gets the same ones.

    A row without a content type, which was published as bytes, gets the one that fits; see ``type_of_bytes``.

    A row that SQL has written may say where to reply. That is left out: whose consumers answer, and to whom, is said by
    the destination's publisher alone.
    """
    headers: Mapping[str, str] = row.headers
    # So rare that to look for all spellings at once costs less than to look at each name.
    if not REPLY_TO_SPELLINGS.isdisjoint(headers):
        headers = {name: value for name, value in headers.items() if name not in REPLY_TO_SPELLINGS}
    made = {
        **headers,
        IDEMPOTENCY_KEY: row.idempotency_key,
        ROW_ID: str(row.id),
        QUEUE: origin_of(row.queue),
        CREATED_AT: rfc3339(row.created_at),
    }
    if CONTENT_TYPE not in made and row.payload and (kind := type_of_bytes(row.payload)) is not None:
        made[CONTENT_TYPE] = kind
    return made


def beside(publishers: Container[str], headers_of: HeadersOf) -> HeadersOf:
    """Return what gives the headers of rows beside those of a publisher, whose content type is for rows without one.

    Args:
        publishers: The names of the headers that the publisher itself sets.
        headers_of: Gives the row's own, if the publisher sets no content type.
    """
    if CONTENT_TYPE not in publishers:
        return headers_of

    def untyped(row: OutboxRow) -> dict[str, str]:
        made = headers_of(row)
        if CONTENT_TYPE not in row.headers:
            made.pop(CONTENT_TYPE, None)
        return made

    return untyped


def type_of_bytes(payload: bytes) -> str | None:
    """Return ``application/json`` for bytes that are JSON, ``application/octet-stream`` for others, None if in doubt.

    FastStream's consumers read bytes without a content type as JSON, if Python can. With the right type they read the
    same, and all other consumers know what they have. In doubt is what Python reads and RFC 8259 does not call JSON
    (UTF-16, a BOM, NaN), and what may be JSON and is too large to try.
    """
    if payload[:1] not in _MAY_BEGIN_JSON:
        return OCTETS
    if len(payload) > MOST_BYTES_TRIED:
        return None
    try:
        json.loads(payload.decode(), parse_constant=_refused, parse_float=_finite)
    except (ValueError, RecursionError):  # also JSON that Python cannot read: a number too long, brackets too deep
        return None if _reads_as_json(payload) else OCTETS
    return JSON


def _reads_as_json(payload: bytes) -> bool:
    try:
        json.loads(payload)
    except (ValueError, RecursionError):
        return False
    return True


def _refused(constant: str) -> None:
    raise ValueError(constant)


def _finite(number: str) -> float:
    if math.isinf(value := float(number)):
        raise ValueError(number)
    return value

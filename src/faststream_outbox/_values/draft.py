"""What is about to become a row: checked, encoded, not yet written."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

from faststream_outbox._values import wire
from faststream_outbox._values.copies import SEPARATOR
from faststream_outbox._values.texts import check_name, check_text, encoded_size
from faststream_outbox._values.uuid7 import uuid7s
from faststream_outbox.exceptions import InvalidMessageError

MAX_QUEUE_BYTES = 255
MAX_KEY_BYTES = 1024
MAX_ADDRESS_BYTES = 1024
MAX_IDEMPOTENCY_KEY_BYTES = 255
"""AMQP 0-9-1 carries it as ``message-id``, a short string of at most 255 bytes."""
MAX_HEADER_NAME_BYTES = 255
"""AMQP 0-9-1 field names are short strings of at most 255 bytes."""
MAX_HEADERS_BYTES = 32 * 1024
"""Names and values together. RabbitMQ closes the connection if a header frame is beyond its 128 KiB frame limit."""
DEFAULT_MAX_PAYLOAD_BYTES = 1024 * 1024
"""Kafka's default ``message.max.bytes`` is 1 MiB with its overhead included."""
MAX_DELAY = timedelta(days=3650)

CONTENT_TYPE = "content-type"
CORRELATION_ID = "correlation_id"
MESSAGE_ID = "message_id"
"""FastStream's envelope for Redis carries the idempotency key under it."""

RESERVED_HEADERS = frozenset(
    {wire.IDEMPOTENCY_KEY, wire.ROW_ID, wire.QUEUE, wire.CREATED_AT, wire.ROW_KEY, CORRELATION_ID, MESSAGE_ID}
)
"""Header names that the bridge writes on the wire itself."""

ARGUMENT_OF_HEADER: Mapping[str, str] = MappingProxyType(
    {
        wire.IDEMPOTENCY_KEY: "idempotency_key",
        MESSAGE_ID: "idempotency_key",
        CORRELATION_ID: "correlation_id",
        wire.ROW_KEY: "key",
    }
)
"""The argument of ``publish`` that sets such a header; the other headers cannot be set."""

_COMPACT_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class Draft(NamedTuple):
    """A checked message, ready to be inserted. Bad input never gets this far: see ``DraftMaker``."""

    queue: str
    key: str | None
    idempotency_key: str
    deduplicate: bool
    payload: bytes
    headers: Mapping[str, str] = MappingProxyType({})
    """Drafts of one call may share one mapping."""
    activate_in: timedelta | None = None
    activate_at: datetime | None = None
    timer_id: str | None = None
    copies: Sequence[str] = ()
    """Queues that get a row of their own for the same message."""


class DraftMaker:
    """Makes the drafts of one call. What its messages have in common is checked once, here.

    Args:
        queue: Of every message.
        max_payload_bytes: The largest encoded body.
        correlation_id: Of every message.
        activate_in: Of every message.
        activate_at: Of every message.
        timer_id: Of every message.
        copies: Names the queues that get a copy of what is published to a queue.
        expected: How many messages there probably are.

    Raises:
        InvalidMessageError: The first part that is refused, with its limit.
    """

    def __init__(
        self,
        *,
        queue: str,
        max_payload_bytes: int,
        correlation_id: str | None = None,
        activate_in: timedelta | None = None,
        activate_at: datetime | None = None,
        timer_id: str | None = None,
        copies: Callable[[str], Sequence[str]] = lambda _queue: (),
        expected: int = 1,
    ) -> None:
        check_queue(queue)
        _check_optional_name("timer_id", timer_id, MAX_IDEMPOTENCY_KEY_BYTES)
        _check_optional_name("correlation_id", correlation_id, MAX_IDEMPOTENCY_KEY_BYTES)
        _check_activation(activate_in, activate_at)
        self._queue = queue
        self._max_payload_bytes = max_payload_bytes
        self._correlation_id = correlation_id
        self._activate_in = activate_in
        self._activate_at = activate_at
        self._timer_id = timer_id
        self._copies = copies(queue)
        self._uuids = uuid7s(expected)

    def make_headers(self, headers: Mapping[str, str] | None, content_type: str | None) -> Mapping[str, str]:
        """Check headers and add the content type and the correlation id; any number of drafts may have what is made.

        Raises:
            InvalidMessageError: The first header that is refused, with its limit.
        """
        made: dict[str, str] = {}
        if content_type is not None:
            made[CONTENT_TYPE] = content_type
        if headers is not None:
            check_headers(headers)
            made.update(headers)
        if self._correlation_id is not None:
            made[CORRELATION_ID] = self._correlation_id
        return made

    def make(
        self,
        payload: bytes,
        headers: Mapping[str, str],
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> Draft:
        """Check what a message has of its own, and put it together.

        Args:
            payload: The encoded body.
            headers: Made by ``make_headers``.
            key: What the message's order depends on.
            idempotency_key: Default: a new UUIDv7.

        Raises:
            InvalidMessageError: The first part that is refused, with its limit.
        """
        if key is not None:
            check_name("key", key, MAX_KEY_BYTES)
        if idempotency_key is not None:
            check_name("idempotency_key", idempotency_key, MAX_IDEMPOTENCY_KEY_BYTES)
        if len(payload) > self._max_payload_bytes:
            problem = f"is {len(payload)} bytes encoded, the broker's max_payload_bytes is {self._max_payload_bytes}"
            raise InvalidMessageError("body", problem)
        # By position: names would cost as much again, a thousand times in a batch.
        return Draft(
            self._queue,
            key,
            next(self._uuids) if idempotency_key is None else idempotency_key,
            idempotency_key is not None,
            payload,
            headers,
            self._activate_in,
            self._activate_at,
            self._timer_id,
            self._copies,
        )


def headers_json(headers: Mapping[str, str]) -> str:
    """Write headers as the JSON text that the table keeps."""
    return _COMPACT_JSON.encode(headers)


def headers_json_of_each(drafts: Sequence[Draft]) -> tuple[str, list[str | None]]:
    """Write the headers of the first draft, and of each draft: None where it has the mapping of the first."""
    first = drafts[0].headers
    written: dict[int, str | None] = {id(first): None}
    texts = []
    for draft in drafts:
        headers = draft.headers
        if id(headers) not in written:
            written[id(headers)] = headers_json(headers)
        texts.append(written[id(headers)])
    return headers_json(first), texts


def check_queue(queue: str) -> None:
    """Refuse a queue name that no row could have."""
    check_name("queue", queue, MAX_QUEUE_BYTES)
    if SEPARATOR in queue:
        raise InvalidMessageError(
            "queue", f"must not contain {SEPARATOR!r}, which names queues of copies; got {queue!r}"
        )


def check_copy_queue(queue: str) -> None:
    """Refuse a queue of copies whose name is too long for a row."""
    check_text("name", queue, MAX_QUEUE_BYTES, what=f"the queue of copies {queue!r}")


def check_timer_id(timer_id: str) -> None:
    """Refuse a timer id that no row could have."""
    check_name("timer_id", timer_id, MAX_IDEMPOTENCY_KEY_BYTES)


def check_key(key: str | None) -> None:
    """Refuse a key that no message could be sent with; such a one is in no log line."""
    if key is not None:
        check_text("key", key, MAX_KEY_BYTES)


def check_address(address: str) -> None:
    """Refuse an address that no destination could have; each kind has narrower limits of its own."""
    check_text("to", address, MAX_ADDRESS_BYTES)


def check_headers(headers: Mapping[str, str], *, arguments: Mapping[str, str] = ARGUMENT_OF_HEADER) -> None:
    """Refuse headers that no message could be published with.

    Args:
        headers: Names and values.
        arguments: Which argument the caller has in place of a reserved header, for the message.

    Raises:
        InvalidMessageError: The first header that is refused, with its limit.
    """
    # The first, since to ask an abstract class takes longer than all the rest.
    if type(headers) is not dict and not isinstance(headers, Mapping):
        raise InvalidMessageError("headers", f"must be a mapping of str to str, got {type(headers).__name__}")
    if _are_plain(headers):
        return
    total = 0
    for name, value in headers.items():
        total += check_text("headers", name, MAX_HEADER_NAME_BYTES, what="a header name")
        if is_reserved(name):
            raise InvalidMessageError("headers", _reserved(name, arguments))
        total += _check_header_value(name, value)
    if total > MAX_HEADERS_BYTES:
        problem = f"names and values are {total} bytes together, the limit is {MAX_HEADERS_BYTES}"
        raise InvalidMessageError("headers", problem)


def is_reserved(name: str) -> bool:
    """Return whether only the bridge itself, or a destination's publisher, may write a header of this name."""
    return name in RESERVED_HEADERS or name.lower() == wire.REPLY_TO


def _reserved(name: str, arguments: Mapping[str, str]) -> str:
    if name not in RESERVED_HEADERS:
        return (
            f"{name!r} tells a FastStream consumer where to publish what its handler returns; leave it out, and give "
            "reply_to= to the forwarder's publisher, or choose another name"
        )
    step = f"give {arguments[name]}= instead" if name in arguments else "leave it out, or choose another name"
    return f"{name!r} is written by the package itself; {step}"


def _are_plain(headers: Mapping[Any, Any]) -> bool:
    """Return whether headers are ASCII, and short all together, as nearly all are: then nothing is wrong."""
    if not RESERVED_HEADERS.isdisjoint(headers) or not all(headers):
        return False
    try:
        text = "".join([*headers, *headers.values()])
    except TypeError:
        return False
    return (
        text.isascii()
        and "\x00" not in text
        and len(text) <= MAX_HEADER_NAME_BYTES
        # A value may have it too: then all is looked at.
        and wire.REPLY_TO not in text.lower()
    )


def _check_header_value(name: str, value: Any) -> int:
    if not isinstance(value, str):
        shown = " (NaN)" if isinstance(value, float) and math.isnan(value) else ""
        raise InvalidMessageError("headers", f"the value of {name!r} must be a str, got {type(value).__name__}{shown}")
    return encoded_size("headers", value, what=f"the value of {name!r}")


def _check_optional_name(argument: str, value: str | None, limit: int) -> None:
    if value is not None:
        check_name(argument, value, limit)


def _check_activation(activate_in: timedelta | None, activate_at: datetime | None) -> None:
    if activate_in is not None and activate_at is not None:
        raise InvalidMessageError("activate_in", "give activate_in or activate_at, not both")
    if activate_in is not None:
        if not isinstance(activate_in, timedelta):
            raise InvalidMessageError("activate_in", f"must be a timedelta, got {type(activate_in).__name__}")
        if not timedelta(0) <= activate_in <= MAX_DELAY:
            raise InvalidMessageError("activate_in", f"must be between 0 and {MAX_DELAY.days} days, got {activate_in}")
    if activate_at is not None:
        if not isinstance(activate_at, datetime):
            raise InvalidMessageError("activate_at", f"must be a datetime, got {type(activate_at).__name__}")
        if activate_at.tzinfo is None or activate_at.utcoffset() is None:
            raise InvalidMessageError("activate_at", f"must be timezone-aware, got the naive {activate_at.isoformat()}")
        _check_utc(activate_at)


def _check_utc(activate_at: datetime) -> None:
    try:
        activate_at.astimezone(UTC)
    except OverflowError:
        problem = f"must lie in the years 1 to 9999 in UTC, got {activate_at.isoformat()}"
        raise InvalidMessageError("activate_at", problem) from None

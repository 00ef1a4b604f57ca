"""What a message may be: its limits, and the names that only the bridge writes."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from faststream_outbox._values import wire
from faststream_outbox._values.copies import SEPARATOR
from faststream_outbox._values.texts import check_name, check_text, encoded_size
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
KEEP, EXTEND = "keep", "extend"
"""What may become of a live timer of the same name."""

RESERVED_HEADERS = frozenset(
    {wire.IDEMPOTENCY_KEY, wire.ROW_ID, wire.QUEUE, wire.CREATED_AT, wire.ROW_KEY, wire.CORRELATION_ID, wire.MESSAGE_ID}
)
"""Header names that the bridge writes on the wire itself."""

ARGUMENT_OF_HEADER: Mapping[str, str] = MappingProxyType(
    {
        wire.IDEMPOTENCY_KEY: "idempotency_key",
        wire.MESSAGE_ID: "idempotency_key",
        wire.CORRELATION_ID: "correlation_id",
        wire.ROW_KEY: "key",
    }
)
"""The argument of ``publish`` that sets such a header; the other headers cannot be set."""


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


def check_timer_conflict(conflict: Any, timer_id: str | None, idempotency_key: str | None) -> None:
    """Refuse what cannot become of a live timer, or could not be told from a duplicate."""
    if conflict == KEEP:
        return
    if conflict != EXTEND:
        raise InvalidMessageError("timer_conflict", f"must be {KEEP!r} or {EXTEND!r}, got {conflict!r}")
    if timer_id is None:
        raise InvalidMessageError("timer_conflict", f"{EXTEND!r} needs a timer_id, which names the timer to be moved")
    if idempotency_key is not None:
        problem = f"{EXTEND!r} and an idempotency_key exclude each other: a timer that takes a live one's place is new"
        raise InvalidMessageError("timer_conflict", problem)


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


def check_optional_name(argument: str, value: str | None, limit: int) -> None:
    if value is not None:
        check_name(argument, value, limit)


def check_activation(activate_in: timedelta | None, activate_at: datetime | None) -> None:
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

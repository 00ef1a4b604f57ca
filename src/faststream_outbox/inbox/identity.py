"""By what a message is known when it comes again."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from faststream.message import StreamMessage

from faststream_outbox._values.wire import IDEMPOTENCY_KEY, QUEUE
from faststream_outbox.exceptions import NoIdentityError

Identify: TypeAlias = Callable[[StreamMessage[Any]], str | None]
"""Returns what names a message of another origin; None where it does not know."""

NATS_MESSAGE_ID = "Nats-Msg-Id"
"""The header by which JetStream knows duplicates; see "Message Deduplication" in NATS's documentation."""

MAX_BYTES = 255
"""Longer names are kept as a digest. A key that ``publish`` takes is never longer."""

NOWHERE = ""
"""The queue of messages that come from no outbox."""


def identify(message: StreamMessage[Any], of_others: Identify | None = None) -> tuple[str, str]:
    """Return queue and key of a message: those of the outbox that it comes from, or else its own id.

    Args:
        message: As any FastStream broker's handler has it.
        of_others: Names messages that come from no outbox, before anything else is tried.

    Raises:
        NoIdentityError: Nothing says by what a repeat of it could be known, or it is a batch.
    """
    if message.batch_headers or isinstance(message.raw_message, list | tuple):
        msg = (
            "an inbox accepts one message at a time, and this is a batch of several; subscribe without batch=True "
            "(RabbitMQ, Redis and NATS likewise), or give each message of it to a handler of its own"
        )
        raise NoIdentityError(msg)
    queue = _text(message.headers, QUEUE)
    key = _text(message.headers, IDEMPOTENCY_KEY)
    if queue and key:
        return _kept(queue), _kept(key)
    named = None if of_others is None else of_others(message)
    own = named or key or _id_of(message)
    if not own:
        msg = (
            f"a {type(message).__name__} without an identity: it has neither the header {IDEMPOTENCY_KEY!r} nor an id "
            "that its broker would give it again; set that header where it is published, or give Inbox(identify=...), "
            "which names messages by their contents"
        )
        raise NoIdentityError(msg)
    return NOWHERE, _kept(own)


def _id_of(message: StreamMessage[Any]) -> str | None:
    """Return an id by which the message's own broker delivers it again.

    FastStream's ``message_id`` will not do: without one in the message it is a new one each time, or, for Kafka, one
    that messages of two partitions may share. Correlation ids name conversations.
    """
    raw: Any = message.raw_message
    if isinstance(raw, Mapping):
        # Redis: entries of streams have ids, those of lists and channels have none.
        ids = raw.get("message_ids")
        return f"{raw['channel']}/{ids[0].decode()}" if ids else None
    if hasattr(raw, "offset") and hasattr(raw, "partition"):
        return _position(raw)
    if NATS_MESSAGE_ID in message.headers:
        return _text(message.headers, NATS_MESSAGE_ID)
    if hasattr(raw, "subject") and hasattr(raw, "reply"):
        return _sequence(raw)
    given = getattr(raw, "message_id", None)
    return given if isinstance(given, str) else None


def _position(record: Any) -> str:
    """Name a Kafka record by where it is in its topic, and when it came there: a topic may be made anew."""
    topic, partition, offset, timestamp = (
        part() if callable(part) else part for part in (record.topic, record.partition, record.offset, record.timestamp)
    )
    written = timestamp[1] if isinstance(timestamp, tuple) else timestamp
    return f"{topic}/{partition}/{offset}/{written}"


def _sequence(message: Any) -> str | None:
    """Name a message of JetStream by its place in the stream; one of core NATS has none."""
    try:
        metadata = message.metadata
    except Exception:  # noqa: BLE001 - nats-py's own, which only its users have
        return None
    return f"{metadata.stream}/{metadata.sequence.stream}/{metadata.timestamp.timestamp()}"


def _text(headers: Mapping[str, Any], name: str) -> str | None:
    """Return a header as text; None where it is missing or nothing that names a message."""
    value = headers.get(name)
    if isinstance(value, bytes):
        value = value.decode(errors="backslashreplace")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) else None


def _kept(name: str) -> str:
    """Return a name as the table keeps it: itself, or a digest where it is too long or no text of PostgreSQL's."""
    encoded = name.encode(errors="surrogatepass")
    if len(encoded) <= MAX_BYTES and b"\x00" not in encoded and len(encoded) == len(name.encode(errors="ignore")):
        return name
    return f"sha256:{hashlib.sha256(encoded).hexdigest()}"

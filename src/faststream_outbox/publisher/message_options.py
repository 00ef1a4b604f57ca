"""The options of a message, besides its body, queue and session."""

from datetime import datetime, timedelta
from typing import Literal

from typing_extensions import TypedDict


class MessageOptions(TypedDict, total=False):
    """Options that every way of publishing one message shares.

    Keys and ids stand in log lines, so none may hold a control character (C0, DEL, C1) or U+2028 or U+2029.
    """

    key: str | None
    """Orders the message behind earlier ones of that key; at most 1024 bytes. Default: no order."""

    idempotency_key: str | None
    """The message's identity, at most 255 bytes; a live row of the queue with it makes publishing a no-op.
    Default: a new UUIDv7."""

    activate_in: timedelta | None
    """Hold the message back for so long, by the database's clock."""

    activate_at: datetime | None
    """Hold the message back until then; timezone-aware."""

    timer_id: str | None
    """Names the message within its queue, so that ``cancel_timer`` finds it; a live one of that name makes publishing
    a no-op. At most 255 bytes."""

    timer_conflict: Literal["keep", "extend"]
    """What becomes of a live timer of that name. ``keep``: it stays as it is, and publishing is a no-op. ``extend``:
    this message takes its place, with its own time, body, headers and key, a new id and a new idempotency key, in one
    statement. A timer that a handler has, or that is parked, is never changed: then publishing is a no-op. While a
    forwarder is just sending it, the call waits for the outcome. Not together with ``idempotency_key``.
    Default: ``keep``."""

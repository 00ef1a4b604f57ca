"""How it ended: the verdict on a row in a hand-over, and the outcome that is written."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias
from zlib import crc32

from faststream_outbox._values.row import OutboxRow


@dataclass(frozen=True, slots=True)
class Delivered:
    """The row's work is done: it leaves the table."""


DELIVERED = Delivered()
"""All are alike, and so one is enough where there are many."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The attempt failed; the row waits for its next one."""

    delay: float
    """Seconds from now."""
    exception: str | None = None


@dataclass(frozen=True, slots=True)
class Dead:
    """The row failed for good: it is parked, or moved to the dead-letter table."""

    reason: str
    """A short stable word, see ``Reason``."""
    exception: str | None = None
    holds_key: bool = False
    """Whether later rows of its key wait until it is replayed or discarded. It is parked then, in any case."""


@dataclass(frozen=True, slots=True)
class Released:
    """The row is given back as it was, at once; no attempt is counted."""

    started: bool = False
    """Whether a handler had begun with it; if not, the delivery is not counted either."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """A part of the destination is down: the row waits for it, with the later rows of its key. No attempt counts."""

    slot: int
    """The part's own, see ``slot_of``: all rows that wait for a part are due at the same time, and are found by it."""
    delay: float | None = None
    """Seconds from now; None: until that time, which is 30 to 90 seconds away."""


SLOTS = 60_000_000
"""The microseconds of the minute after which rows that are deferred are due."""


def slot_of(part: str) -> int:
    """Return the microsecond of a minute that is a part's own, the same in all processes."""
    return crc32(part.encode()) % SLOTS


Outcome: TypeAlias = Delivered | Retry | Dead | Released | Deferred


class Settlement(NamedTuple):
    """A row and the outcome to be written for it."""

    row: OutboxRow
    outcome: Outcome


class Unwritten(NamedTuple):
    """An outcome that the database refuses for good, as far as it says: the row is as it was."""

    settlement: Settlement
    error: BaseException
    """What the database says, in its own words."""


class Reason:
    """Why a row died; kept in ``failure_reason``."""

    RETRIES_EXHAUSTED = "retries_exhausted"
    REJECTED = "rejected"
    MAX_DELIVERIES = "max_deliveries"
    TOO_LARGE = "too_large"
    INVALID = "invalid"
    INVALID_BODY = "invalid_body"


@dataclass(frozen=True, slots=True)
class Accepted:
    """The destination acknowledged and accepted the row."""


ACCEPTED = Accepted()
"""All are alike, and so one is enough where there are many."""


@dataclass(frozen=True, slots=True)
class Deduplicated(Accepted):
    """The destination has had a message of this identity before, and keeps that one alone."""


DEDUPLICATED = Deduplicated()


@dataclass(frozen=True, slots=True)
class Refused:
    """The destination refused this row; it counts as an attempt."""

    exception: BaseException


@dataclass(frozen=True, slots=True)
class Poison:
    """The destination will never take this row."""

    reason: str
    exception: BaseException


@dataclass(frozen=True, slots=True)
class Unsent:
    """Nothing is known to have happened to the row: it stays, and no attempt is counted."""

    exception: BaseException | None = None
    """Why the destination cannot take rows now; None for a row that only waited behind another of its key."""
    part: str | None = None
    """The part of the destination that is down, where the rest of it is not: it sees by itself to when that is tried
    again. None where the destination as a whole may be down."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The forwarder's transform has dropped the row on purpose: no consumer gets it."""


Verdict: TypeAlias = Accepted | Refused | Poison | Unsent | Dropped
"""What a hand-over has come to for a row: what its destination says, or that the transform has dropped it."""


TextOf: TypeAlias = Callable[[BaseException | None], str | None]
"""Returns what ``last_exception`` keeps of an exception."""

MOST_CHARACTERS = 2000
"""Of an exception's text, as it is kept."""


def describe(exception: BaseException | None) -> str | None:
    """Put an exception into the one line that ``last_exception`` keeps."""
    if exception is None:
        return None
    try:
        text = f"{type(exception).__name__}: {exception}"
    except Exception:  # noqa: BLE001 - the user's __str__
        text = f"{type(exception).__name__}: (str() of it fails)"
    return storable(text)


def storable(text: str) -> str:
    """Return a text as PostgreSQL can keep it, and not too long."""
    text = text.replace("\x00", "\\x00")
    # A lone surrogate in a message would make the very write fail that keeps the row safe.
    return text.encode(errors="replace").decode()[:MOST_CHARACTERS]


def in_ascii(text: str | None) -> str | None:
    """Return a text with escapes in place of all that is not ASCII, for a database whose encoding lacks it."""
    return None if text is None else text.encode("ascii", errors="backslashreplace").decode()

"""What people have said for all processes: pauses that are stored, and the lines of the audit log."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, NamedTuple

from faststream_outbox._values.printable import printable


class PausedKey(NamedTuple):
    """A key of which no row is taken."""

    queue: str | None
    """In this queue; None: in every queue."""
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a pause is of: a forwarder, a queue, a key of a queue, or a key in every queue."""

    forwarder: str | None = None
    queue: str | None = None
    key: str | None = None

    def given(self) -> Mapping[str, str]:
        """Return what is given, by its name."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        return " ".join(f"{name} {printable(value)!r}" for name, value in reversed([*self.given().items()]))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPause:
    """A pause that is in force for all processes."""

    scope: Scope
    who: str
    why: str | None
    since: datetime
    until: datetime | None
    """When it ends by itself; None where it does not."""
    seconds_left: float | None
    """Until then, by the database's clock, when it was read."""

    def __str__(self) -> str:
        until = "" if self.until is None else f", until {self.until:%Y-%m-%d %H:%M} UTC"
        why = "" if self.why is None else f": {printable(self.why)}"
        return f"{self.scope}, by {printable(self.who)} since {self.since:%Y-%m-%d %H:%M} UTC{until}{why}"


@dataclass(slots=True, kw_only=True)
class Note:
    """What is to stand in the audit log of a change, which may be made in several transactions."""

    action: str
    """``replay`` or ``discard``."""
    what: Mapping[str, Any]
    """Which rows were meant."""
    who: str
    why: str | None = None
    line: int | None = None
    """The id of the line that an earlier transaction of the change has written: it counts the others too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLine:
    """What somebody has done."""

    id: int
    at: datetime
    who: str
    action: str
    """``pause``, ``resume``, ``replay`` or ``discard``."""
    what: Mapping[str, Any]
    """Of a pause its scope; of dead letters which of them were meant, ``{}`` for all."""
    why: str | None
    affected: int
    """How many dead letters were changed, or pauses ended."""
    until: datetime | None = None
    """Of a pause: when it was to end by itself."""
    ended_at: datetime | None = None
    """Of a pause: when it ended, as far as that is written down."""

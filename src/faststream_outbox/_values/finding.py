"""What an examination has found."""

from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing."""
    UNKNOWN = "unknown"
    """It could not be looked at."""
    WARNING = "warning"
    """Messages still flow, and it should be seen to."""
    PROBLEM = "problem"
    """Messages do not flow, or may stop soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """What was looked at: a short stable word."""
    grade: Grade
    text: str
    """What was seen."""
    advice: str | None = None
    """What to do about it."""

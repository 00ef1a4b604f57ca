"""What the log says of an error."""

from typing import NamedTuple

from faststream_outbox._values.outcome import describe


class Explanation(NamedTuple):
    """An error in words."""

    text: str
    """What has happened, and what to do about it where that is known."""
    is_whole: bool = False
    """Whether the text says everything: a traceback would add nothing."""


def unexplained(error: BaseException) -> Explanation:
    """Return the error's own words; where it comes from is left to a traceback."""
    return Explanation(describe(error) or "")

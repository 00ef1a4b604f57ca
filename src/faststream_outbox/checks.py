"""What options may be: numbers, spans of time, yes or no; and the names that a call knows."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from faststream_outbox.exceptions import ConfigError

MAX_COUNT = 2**31 - 1
"""PostgreSQL's largest integer; LIMIT gets it."""

MIN_SECONDS = 0.01
"""No interval and no time-out is shorter: a loop would do nothing but look, and no server answers as fast."""

MAX_SECONDS = 7 * 86_400.0
"""A week: nothing sensible waits longer, and infinity fits into no interval of PostgreSQL."""


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant by an unknown one; None where none is close."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return found[0] if found else None


def check_options(call: str, given: Mapping[str, Any], known: Any, *, besides: Collection[str] = ()) -> None:
    """Refuse options that a ``TypedDict`` does not have; Python itself takes any name for ``**options``.

    Args:
        call: What was called, for the message.
        given: The keyword arguments.
        known: The ``TypedDict``.
        besides: The call's optional arguments that are no part of it.

    Raises:
        TypeError: Names the first unknown option, and the one that was probably meant.
    """
    for name in given:
        if name not in known.__optional_keys__:
            meant = closest(name, [*sorted(known.__optional_keys__), *besides])
            msg = f"{call}() got an unexpected keyword argument {name!r}"
            msg = f"{msg}; did you mean {meant!r}?" if meant else msg
            raise TypeError(msg)


def require_count(option: str, value: Any, *, at_most: int = MAX_COUNT) -> int:
    """Return a value that is a number of things; raise for any other.

    Raises:
        ConfigError: It is not an integer, or there can be none of so many.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= at_most:
        msg = f"{option}: must be an integer from 1 to {at_most}, got {value!r}"
        raise ConfigError(msg)
    return value


def require_seconds(option: str, value: Any, *, at_least: float) -> float:
    """Return a value that is a span of time; raise for any other.

    Raises:
        ConfigError: It is not a number, or too short or too long.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not at_least <= value <= MAX_SECONDS:
        msg = f"{option}: must be a number of seconds from {at_least:g} to {MAX_SECONDS:g}, got {value!r}"
        raise ConfigError(msg)
    return value


def require_text(option: str, value: Any) -> str | None:
    """Return a value that is a text, or None; raise for any other, before PostgreSQL's driver refuses it.

    Raises:
        ConfigError: It is something else.
    """
    if value is not None and not isinstance(value, str):
        msg = f"{option}: must be a str, got {value!r}"
        raise ConfigError(msg)
    return value


def require_flag(option: str, value: Any) -> bool:
    """Return a value that is True or False; raise for any other, since ``"no"`` would count as True.

    Raises:
        ConfigError: It is neither True nor False.
    """
    if not isinstance(value, bool):
        msg = f"{option}: must be True or False, got {value!r}"
        raise ConfigError(msg)
    return value

"""Checks texts that are about to be stored and sent."""

import re
from typing import Any

from faststream_outbox.exceptions import InvalidMessageError

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Unicode's control characters (C0, DEL, C1) and its two separators of lines: what a terminal obeys, or what a reader
of logs takes for the end of a line."""


def check_text(argument: str, value: Any, limit: int, *, what: str = "") -> int:
    """Refuse what is no text of 1 to ``limit`` bytes, and return its size.

    Args:
        argument: What the caller calls it.
        value: Anything.
        limit: In bytes of UTF-8.
        what: Which part of the argument it is, for the message.

    Raises:
        InvalidMessageError: It cannot be stored, or is too long.
    """
    # Nearly all texts are such, which is seen at one glance.
    if type(value) is str and 0 < len(value) <= limit and value.isascii() and "\x00" not in value:
        return len(value)
    subject = f"{what} " if what else ""
    if not isinstance(value, str):
        raise InvalidMessageError(argument, f"{subject}must be a str, got {type(value).__name__}")
    size = encoded_size(argument, value, what=what)
    if not 0 < size <= limit:
        raise InvalidMessageError(argument, f"{subject}must be 1 to {limit} bytes of UTF-8, got {size}")
    return size


def check_name(argument: str, value: Any, limit: int) -> None:
    """Refuse what could not be a name: names stand in log lines, and no part of one may look like another line.

    Args:
        argument: What the caller calls it.
        value: Anything.
        limit: In bytes of UTF-8.

    Raises:
        InvalidMessageError: See ``check_text``; or it holds a control character (C0, DEL, C1), U+2028 or U+2029.
    """
    if type(value) is str and 0 < len(value) <= limit and value.isascii() and value.isprintable():
        return
    check_text(argument, value, limit)
    if found := _CONTROL.search(value):
        raise InvalidMessageError(
            argument,
            f"holds the control character U+{ord(found[0]):04X} at position {found.start()}; names stand in log lines, "
            "so control characters and separators of lines are refused",
        )


def encoded_size(argument: str, value: str, *, what: str) -> int:
    """Return the size of a text in UTF-8.

    Raises:
        InvalidMessageError: PostgreSQL cannot store it.
    """
    subject = f"{what} " if what else ""
    if "\x00" in value:
        raise InvalidMessageError(argument, f"{subject}holds a NUL character, which PostgreSQL cannot store")
    try:
        return len(value.encode())
    except UnicodeEncodeError as error:
        problem = f"{subject}holds a lone surrogate at position {error.start}, which is not valid UTF-8"
        raise InvalidMessageError(argument, problem) from None

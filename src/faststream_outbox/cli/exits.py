"""How a command ends: its exit code, and what it says of an error."""

import json
import sys
from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """Exit codes; docs/command-line.md lists them."""

    OK = 0
    FOUND = 1
    """The answer is no: tables differ, a problem was found, there is no such letter."""
    USAGE = 2
    """The command was given wrongly."""
    DATABASE = 3
    """The database cannot be reached, or refuses."""
    INTERRUPTED = 130


class CommandError(Exception):
    """Ends a command with a message and an exit code.

    Attributes:
        code: The exit code.
    """

    def __init__(self, message: str, code: Exit) -> None:
        super().__init__(message)
        self.code = code


def report(message: str, *, as_json: bool, **more: Any) -> None:
    """Write an error to stderr, in one line of JSON where that is asked for."""
    text = json.dumps({"error": message, **more}) if as_json else f"error: {message}"
    sys.stderr.write(f"{text}\n")

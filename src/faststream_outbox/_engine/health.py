"""Says once that something is down, and once that it is back."""

import logging
from collections.abc import Callable
from typing import TypeAlias

Log: TypeAlias = Callable[[int, str, BaseException | None], None]
"""Takes a level of ``logging``, a message, and the exception behind it."""


class Health:
    """The state of one thing that several loops depend on: the database, or a destination.

    Args:
        name: What it is, as it should read in the log.
        log: Where changes are written.
    """

    def __init__(self, name: str, log: Log) -> None:
        self.name = name
        self.last_error: BaseException | None = None
        self._log = log

    @property
    def is_down(self) -> bool:
        return self.last_error is not None

    def failed(self, error: BaseException) -> None:
        """Note a failure; it is logged if it is the first, or of another kind than the last."""
        if type(error) is not type(self.last_error):
            self._log(logging.ERROR, f"{self.name}: {type(error).__name__}: {error} (retrying until it works)", error)
        self.last_error = error

    def recovered(self) -> None:
        """Note a success; it is logged if there was a failure before."""
        if self.last_error is not None:
            self.last_error = None
            self._log(logging.INFO, f"{self.name}: works again", None)

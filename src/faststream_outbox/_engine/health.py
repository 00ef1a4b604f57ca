"""Says once that something is down, and once that it is back."""

import logging
import math
import time
from collections.abc import Callable
from typing import TypeAlias

from faststream_outbox._values.explanation import Explanation, unexplained
from faststream_outbox._values.printable import printable

QUIET_SECONDS = 60.0
"""During an outage, further lines are at least so far apart."""

Log: TypeAlias = Callable[[int, str, BaseException | None], None]
"""Takes a level of ``logging``, a message, and the exception behind it."""


def guarded(log: Log) -> Log:
    """Make a log that never raises, and of which each message is one line, whatever rows and errors have in them.

    No loop may end because the application's logger is broken.
    """

    def write(level: int, message: str, error: BaseException | None) -> None:
        line = printable(message)
        try:
            log(level, line, error)
        except Exception:
            logging.getLogger("faststream_outbox").exception("the logger failed; its line was: %s", line)

    return write


class Health:
    """The state of one thing that several loops depend on: the database, or a destination.

    Args:
        name: What it is, as it should read in the log.
        log: Where changes are written.
        explain: Puts an error into words.
    """

    def __init__(self, name: str, log: Log, explain: Callable[[BaseException], Explanation] = unexplained) -> None:
        self.name = name
        self.last_error: BaseException | None = None
        self._log = log
        self._explain = explain
        self._logged: set[type[BaseException]] = set()
        self._last_line = -math.inf

    @property
    def is_down(self) -> bool:
        return self.last_error is not None

    def failed(self, error: BaseException) -> None:
        """Note a failure: the first since all was well is an error; one of another kind is worth a line now and then.

        During an outage a client has many names for it (reset, refused, timed out); they are not changes of state.
        """
        if not self.is_down:
            self._tell(logging.ERROR, error)
        elif type(error) not in self._logged and time.monotonic() - self._last_line >= QUIET_SECONDS:
            self._tell(logging.INFO, error)
        self.last_error = error

    def _tell(self, level: int, error: BaseException) -> None:
        self._logged.add(type(error))
        self._last_line = time.monotonic()
        text, is_whole = self._explain(error)
        self._log(level, f"{self.name}: {text} (retrying until it works)", None if is_whole else error)

    def recovered(self) -> None:
        """Note a success; it is logged if there was a failure before."""
        if self.last_error is not None:
            self.last_error = None
            self._logged.clear()
            self._log(logging.INFO, f"{self.name}: works again", None)

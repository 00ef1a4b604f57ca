"""Says once that something is down, now and then that it still is, and once that it is back."""

import logging
import math
import time
from collections.abc import Callable
from typing import TypeAlias

from faststream_outbox._values.explanation import Explanation, unexplained
from faststream_outbox._values.printable import printable

FAILING_SECONDS = 60.0
"""After so long without another failure, a loop does not count as failing: it waits for something else."""

QUIET_SECONDS = 60.0
"""During an outage, further lines are at least so far apart. The first reminder comes after it, each later one after
twice the time of the one before."""

LONGEST_QUIET_SECONDS = 3600.0
"""No reminder comes later after the one before: the last hour of a log always shows that something is down."""

Log: TypeAlias = Callable[[int, str, BaseException | None], None]
"""Takes a level of ``logging``, a message, and the exception behind it."""


def guarded(log: Log) -> Log:
    """Return a log that never raises and writes each message as one line, whatever rows and errors contain.

    No loop may end because the application's logger is broken.
    """

    def write(level: int, message: str, error: BaseException | None) -> None:
        line = printable(message)
        try:
            log(level, line, error)
        except Exception:
            logging.getLogger("faststream_outbox").exception("the logger failed; its line was: %s", line)

    return write


def quiet(log: Log) -> Log:
    """Return a log for lines that need no action: none has a higher level than INFO, or a traceback."""
    return lambda level, message, _error: log(min(level, logging.INFO), message, None)


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
        self._failing: dict[str, float] = {}
        """The loops whose last round failed, and when."""
        self._log = log
        self._explain = explain
        self._logged: set[type[BaseException]] = set()
        self._last_line = -math.inf
        self._down_since = 0.0
        self._quiet = QUIET_SECONDS
        """Seconds between the last reminder and the next one."""
        self._next_reminder = math.inf

    @property
    def is_down(self) -> bool:
        return self.last_error is not None

    @property
    def is_reminder_due(self) -> bool:
        """Whether it is down, and has been for so long that it is time to say so again."""
        return self.is_down and time.monotonic() >= self._next_reminder

    def failed(self, error: BaseException, by: str = "") -> None:
        """Note a failure: the first since all was well is an error; one of another kind is worth a line now and then.

        During an outage a client has many names for it (reset, refused, timed out); they are not changes of state.

        Args:
            error: What was raised.
            by: The loop that has failed.
        """
        self._failing[by] = time.monotonic()
        if not self.is_down:
            self._begin_outage()
            self._tell(logging.ERROR, error)
        elif type(error) not in self._logged and time.monotonic() - self._last_line >= QUIET_SECONDS:
            self._tell(logging.INFO, error)
        self.last_error = error

    def remind(self, details: str = "") -> None:
        """Log that it is still down, if it is; the next reminder is due after twice the time.

        Args:
            details: What else is worth knowing by now.
        """
        if self.last_error is None:
            return
        now = time.monotonic()
        self._quiet = min(2 * self._quiet, LONGEST_QUIET_SECONDS)
        self._next_reminder = now + self._quiet
        self._logged.add(type(self.last_error))
        self._last_line = now
        text = self._explain(self.last_error).text
        more = f"; {details}" if details else ""
        self._log(
            logging.WARNING, f"{self.name}: still so after {in_words(now - self._down_since)}: {text}{more}", None
        )

    def _begin_outage(self) -> None:
        self._down_since = time.monotonic()
        self._quiet = QUIET_SECONDS
        self._next_reminder = self._down_since + QUIET_SECONDS

    def _tell(self, level: int, error: BaseException) -> None:
        self._logged.add(type(error))
        self._last_line = time.monotonic()
        text, is_whole = self._explain(error)
        self._log(level, f"{self.name}: {text} (retrying until it works)", None if is_whole else error)

    def passed(self, by: str) -> None:
        """Note that a round of a loop came to its end, whatever it was about."""
        self._failing.pop(by, None)

    def recovered(self, by: str = "") -> None:
        """Note a success; it is logged if there was a failure before, and no other loop fails just now.

        What one loop can do (take rows) says nothing of what another one cannot (write their outcomes).
        """
        if self.last_error is None:
            return
        self._failing.pop(by, None)
        now = time.monotonic()
        if all(now - failed_at >= FAILING_SECONDS for failed_at in self._failing.values()):
            self._failing.clear()
            self.last_error = None
            self._logged.clear()
            self._log(logging.INFO, f"{self.name}: works again", None)


def in_words(seconds: float) -> str:
    """Return a span of time as people say it."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"

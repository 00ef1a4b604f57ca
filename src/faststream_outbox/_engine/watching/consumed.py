"""The queues that are consumed, as far as this process has heard."""

import math
import time
from collections.abc import Callable, Collection, Iterable

ANNOUNCE_SECONDS = 60.0
"""Each process says so often which queues it consumes."""

HEARING_SECONDS = 2 * ANNOUNCE_SECONDS + 10.0
"""After so long on the line every other process has been heard, also one of which a word was lost."""

KEPT_SECONDS = 5 * ANNOUNCE_SECONDS
"""For so long a queue counts as consumed after the last word of it: a process that is busy may miss several times."""

MOST_NAMES = 10_000
"""Names that are kept: a role that may NOTIFY could send any number."""


class Consumed:
    """The queues that this process consumes, and those that others have said they do.

    Args:
        own: Gives the queues of this process.
    """

    def __init__(self, own: Callable[[], Collection[str]]) -> None:
        self._own = own
        self._until: dict[str, float] = {}
        self._hears_since = math.inf

    @property
    def own(self) -> Collection[str]:
        """The queues of this process."""
        return self._own()

    @property
    def is_complete(self) -> bool:
        """Whether everybody who consumes a queue has been heard."""
        return time.monotonic() - self._hears_since >= HEARING_SECONDS and len(self._until) < MOST_NAMES

    def names(self) -> set[str]:
        """Return the queues that are known to be consumed."""
        now = time.monotonic()
        self._until = {queue: until for queue, until in self._until.items() if until > now}
        return {*self._own(), *self._until}

    def begin(self) -> None:
        """Note that from now on everything is heard."""
        self._hears_since = time.monotonic()

    def end(self) -> None:
        """Note that nothing is heard any more."""
        self._hears_since = math.inf

    def heard(self, queues: Iterable[str]) -> None:
        """Note that these queues are consumed."""
        until = time.monotonic() + KEPT_SECONDS
        for queue in queues:
            if queue in self._until or len(self._until) < MOST_NAMES:
                self._until[queue] = until

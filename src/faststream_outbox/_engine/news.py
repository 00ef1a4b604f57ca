"""When a process last had to do with rows."""

import math
import time


class News:
    """Remembers when something last happened: a wake-up, or rows that were found."""

    def __init__(self) -> None:
        self._noted_at = -math.inf

    @property
    def seconds(self) -> float:
        """For how many seconds nothing has happened; infinity if nothing has so far."""
        return time.monotonic() - self._noted_at

    def note(self) -> None:
        """Note that something happens now."""
        self._noted_at = time.monotonic()

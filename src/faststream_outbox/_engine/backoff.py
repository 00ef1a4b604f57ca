"""How long a loop waits after a failure."""

import math
import random


class Backoff:
    """Delays that double from ``initial`` to ``maximum`` seconds, each shortened at random by up to half.

    The randomness keeps many processes from coming back to a recovering server in step.
    """

    def __init__(self, initial: float = 0.1, maximum: float = 5.0) -> None:
        self._initial = initial
        self._maximum = maximum
        self._failures = 0

    def next(self) -> float:
        """Count a failure and return the seconds to wait."""
        # The exponent is capped: 2.0 ** 1100 would overflow during a long outage.
        delay = min(self._maximum, self._initial * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return delay * random.uniform(0.5, 1.0)  # noqa: S311 - nothing secret depends on it

    def ease(self) -> None:
        """Note a success that may be the only one: the next delay is half of the last one."""
        # What was counted after the longest delay was reached makes no difference, however long that lasted.
        longest = math.ceil(math.log2(max(1.0, self._maximum / self._initial)))
        self._failures = max(0, min(self._failures, longest) - 2)

    def reset(self) -> None:
        """Start over after a success."""
        self._failures = 0

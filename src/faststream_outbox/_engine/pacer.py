"""When to look for rows again."""

from collections.abc import Awaitable, Callable

from faststream_outbox._engine.wakeups import Wakeup

AFTERLOOK_SECONDS = 0.05
"""After rows were found, one more look soon shows whether a waiting row is due; a busy queue is looked at anyway."""


class Pacer:
    """Rests between two looks: until a wake-up, until a waiting row is due, or for a polling interval that grows.

    Args:
        wakeup: Rings when there may be new rows.
        seconds_to_next_due: Asks the store how long until the first waiting row is due.
        shortest: The first polling interval without rows, in seconds.
        longest: Where the interval stops growing, in seconds.
    """

    def __init__(
        self,
        wakeup: Wakeup,
        seconds_to_next_due: Callable[[], Awaitable[float | None]],
        *,
        shortest: float,
        longest: float,
    ) -> None:
        self._wakeup = wakeup
        self._seconds_to_next_due = seconds_to_next_due
        self._shortest = shortest
        self._longest = longest
        self._interval = shortest

    def begin_look(self) -> None:
        """Call before looking: a wake-up from now on means that there may be more than the look will see."""
        self._wakeup.clear()

    async def rest(self, *, found: bool) -> None:
        """Wait after a look that took all there was."""
        if found:
            self._interval = self._shortest
            await self._wakeup.wait(min(AFTERLOOK_SECONDS, self._shortest))
            return
        due = await self._seconds_to_next_due()
        await self._wakeup.wait(self._interval if due is None else max(0.0, min(due, self._interval)))
        self._interval = min(self._longest, self._interval * 2)

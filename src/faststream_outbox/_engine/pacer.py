"""When to look for rows again."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence

from faststream_outbox._engine.lookout import Lookout
from faststream_outbox._engine.wakeups import Wakeup
from faststream_outbox._store.protocol import Outlook

AFTERLOOK_SECONDS = 0.05
"""A rest begins with so long a wait for a bell: while rows come in all the time, nobody needs to know what waits.
After rows were found, this also shows whether others have come since."""

EARLIER = 0.5
"""A look may come so much of its time earlier, to be made together with those for other loops."""


class Pacer:
    """Rests between two looks: until a wake-up, or until the lookout sees something to do.

    A loop clears the bell before it looks, so a ring during the look ends the next rest at once. What the lookout
    sees may be in the hands of another process. So after a look in vain it counts only when an interval is over, which
    grows while nothing is found.

    Args:
        wakeup: Rings when there may be new rows.
        lookout: Looks for all loops of the process.
        queues: Returns the names of the queues that the loop takes rows from now.
        shortest: The first interval without rows, in seconds.
        longest: Where the interval stops growing, in seconds.
    """

    def __init__(
        self,
        wakeup: Wakeup,
        lookout: Lookout,
        queues: Callable[[], Sequence[str]],
        *,
        shortest: float,
        longest: float,
    ) -> None:
        self._wakeup = wakeup
        self._lookout = lookout
        self._queues = queues
        self._shortest = shortest
        self._longest = longest
        self._interval = shortest
        self._overdue = 0.0
        self._is_over = False
        """Whether the interval is over: what is ready counts."""
        self._is_wanted: Callable[[], bool] = _no
        self._timer: asyncio.TimerHandle | None = None
        self.look_from = self.look_at = math.inf

    @property
    def queues(self) -> Sequence[str]:
        return self._queues()

    async def rest(
        self, *, found: bool, at_most: float = math.inf, is_wanted: Callable[[], bool] | None = None
    ) -> None:
        """Wait after a look that took all there was. What rang since it began ends the rest at once.

        Args:
            found: Whether the look found rows.
            at_most: Seconds after which there is something to look at that does not ring.
            is_wanted: Returns whether the loop has another reason to look when an interval is over.
        """
        if found:
            self._interval = self._shortest
            self._overdue = 0.0
        if self._wakeup.is_rung:
            return
        self._is_over = found
        self._is_wanted = is_wanted or _no
        self._look_in(min(AFTERLOOK_SECONDS, self._shortest))
        try:
            with self._lookout.beside(self):
                await self._wakeup.wait(None if math.isinf(at_most) else at_most)
        finally:
            self._ring_in(None)

    def heard(self, outlook: Outlook) -> None:
        """Wake the loop now, or when its first waiting row is due, or leave it asleep for another interval."""
        is_due = outlook.seconds is not None and outlook.seconds <= 0
        if self._is_over and (outlook.is_ready or is_due or self._is_wanted()):
            self._wakeup.ring()
            return
        self._is_over = True
        self._ring_in(None if outlook.seconds is None else self._until(outlook.seconds))
        self._look_in(self._interval)
        self._interval = min(self._longest, self._interval * 2)

    def unheard(self) -> None:
        """Wake the loop, which finds out what is wrong."""
        self._wakeup.ring()

    def _look_in(self, seconds: float) -> None:
        self.look_at = time.monotonic() + seconds
        self.look_from = self.look_at - EARLIER * seconds

    def _ring_in(self, seconds: float | None) -> None:
        """Wake the loop then, and not when it was said before; None only takes that back."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        # What comes later is seen again before it comes.
        if seconds is not None and seconds < self._interval:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._wakeup.ring)

    def _until(self, due: float) -> float:
        if due > 0:
            self._overdue = 0.0
            return due
        # Its time has come, and the look did not get it: someone else has it just now, or an earlier row of its key
        # holds it back. To look at once, again and again, would be a busy loop for as long as that lasts.
        self._overdue = max(AFTERLOOK_SECONDS, min(self._longest, self._overdue * 2))
        return self._overdue


def _no() -> bool:
    return False

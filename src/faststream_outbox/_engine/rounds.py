"""In which order the shards of some queues are visited."""

import math
import random
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from faststream_outbox._store.protocol import Place

ROUND_SECONDS = 1.0
"""How long a place without result is left out while others always have work."""

FIRST_REST_SECONDS = 0.1
REST_SECONDS = 1.0
FULL_REST_SECONDS = 5.0
"""How long a place is left alone all of whose rows are for a part of the destination that is down: at first, and in the
end. Where they fill a hand-over each look costs much, and finds nothing that stands behind them."""

WIDENING = 2
"""By how much the breadth grows after a hand-over that took all that its places had."""


class _Rest(NamedTuple):
    until: float
    seconds: float


class Rounds:
    """Places in a rotating order, so that none is served twice while another waits.

    A few rows here and there are best taken all at once. Where much has piled up, one place gives enough for a
    hand-over, and leaves the others to the lanes beside. So the breadth goes by what the last hand-over found.

    Args:
        queues: Queue names.
        shards: How many shards each queue has.
    """

    def __init__(self, queues: Sequence[str], shards: int) -> None:
        places = [Place(queue, shard) for shard in range(shards) for queue in queues]
        self._places = deque(places)
        self._fruitless: set[Place] = set()
        self._resting: dict[Place, _Rest] = {}
        self._skipped: list[Place] = []
        """Those that the last look has left out because they rest, and those that were put off since."""
        self.breadth = 1
        """How many places the next hand-over should take."""
        self._began = time.monotonic()
        # Processes that start together should not knock at the same doors in step.
        self._places.rotate(random.randrange(len(places)))  # noqa: S311 - nothing secret hangs on it

    @property
    def all(self) -> list[Place]:
        return list(self._places)

    @property
    def queues(self) -> list[str]:
        return sorted({place.queue for place in self._places})

    @property
    def is_whole(self) -> bool:
        """Whether the next look leaves no place out, but for those that rest: what has rung for them is for later."""
        return not self._fruitless

    def next(self) -> list[Place]:
        """Return the places to try now, without those that were fruitless in this round, and those that rest."""
        self._skipped = []
        if not self._resting:
            return [place for place in self._places if place not in self._fruitless]
        now = time.monotonic()
        self._skipped = [place for place, rest in self._resting.items() if now < rest.until]
        left_out = {*self._skipped} | self._fruitless
        return [place for place in self._places if place not in left_out]

    def put_off(self, places: Iterable[Place], *, are_full: bool) -> None:
        """Leave places alone for a while, longer each time, until one of their rows can be carried.

        Args:
            places: All their rows are for a part of the destination that is down.
            are_full: Whether they may have more rows than were looked at.
        """
        longest = FULL_REST_SECONDS if are_full else REST_SECONDS
        for place in places:
            before = self._resting.get(place)
            seconds = FIRST_REST_SECONDS if before is None else min(2 * before.seconds, longest)
            self._resting[place] = _Rest(time.monotonic() + seconds, seconds)
            self._skipped.append(place)

    @property
    def seconds_of_rest(self) -> float:
        """How long until one of the places that the last look has left out is to be tried; infinity without any.

        A place that was looked at counts no more: others may have emptied it, and nobody ends its rest then.
        """
        rests = (self._resting[place].until for place in self._skipped if place in self._resting)
        return max(0.0, min(rests, default=math.inf) - time.monotonic())

    def take_up(self, places: Iterable[Place]) -> None:
        """Note that rows of these places can be carried."""
        for place in places if self._resting else ():
            self._resting.pop(place, None)

    def advance(self) -> None:
        """Begin one place later the next time."""
        self._places.rotate(-1)

    def visited(self, place: Place) -> None:
        """Begin behind this place the next time."""
        self._places.rotate(-1 - self._places.index(place))

    def widen(self) -> None:
        """Take more places the next time: these had no more than they gave."""
        self.breadth = min(self.breadth * WIDENING, len(self._places))

    def narrow(self) -> None:
        """Take one place the next time: it may have enough for a hand-over, or should be tried alone."""
        self.breadth = 1

    def fruitful(self) -> None:
        """Note that a place had rows that could be carried: while there are such, the round has no natural end."""
        if time.monotonic() - self._began > ROUND_SECONDS:
            self.finish()

    def fruitless(self, places: Iterable[Place]) -> None:
        """Leave places out until the round is over: all their rows wait for another row, or were not taken."""
        self._fruitless.update(places)

    def finish(self) -> None:
        """End the round: every place counts again."""
        self._fruitless.clear()
        self._began = time.monotonic()

"""In which order the shards of some queues are visited."""

import math
import random
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from faststream_outbox._engine.news import News
from faststream_outbox._engine.pauses import Pauses
from faststream_outbox._values.shard import Shard

ROUND_SECONDS = 1.0
"""How long a shard without result is left out while others always have work."""

FIRST_REST_SECONDS = 0.1
REST_SECONDS = 1.0
FULL_REST_SECONDS = 5.0
"""How long a shard is left alone all of whose rows are for a part of the destination that is down: at first, and in the
end. Where they fill a hand-over each look costs much, and finds nothing that stands behind them."""

WIDENING = 2
"""By how much the breadth grows after a hand-over that took all that its shards had."""


class _Rest(NamedTuple):
    until: float
    seconds: float


class Rounds:
    """Shards in a rotating order, so that none is served twice while another waits.

    A few rows here and there are best taken all at once. Where much has piled up, one shard gives enough for a
    hand-over, and leaves the others to the lanes beside. So the last hand-over decides the breadth.

    Args:
        queues: Queue names.
        count: How many shards each queue has.
        news: Of the process.
        pauses: Which queues are paused.
    """

    def __init__(
        self, queues: Sequence[str], count: int, news: News | None = None, pauses: Pauses | None = None
    ) -> None:
        self._news = news or News()
        shards = [Shard(queue, number) for number in range(count) for queue in queues]
        self._shards = deque(shards)
        self._pauses = pauses or Pauses()
        self._queues = sorted({*queues})
        self._fruitless: set[Shard] = set()
        self._resting: dict[Shard, _Rest] = {}
        self._skipped: list[Shard] = []
        """Shards that the last look left out because they rest, and shards that were put off since."""
        self.breadth = 1
        """How many shards the next hand-over should take."""
        self._began = time.monotonic()
        # Processes that start together should not knock at the same doors in step.
        self._shards.rotate(random.randrange(len(shards)))  # noqa: S311 - nothing secret depends on it

    @property
    def all(self) -> list[Shard]:
        return list(self._shards)

    @property
    def queues(self) -> list[str]:
        return self._queues

    @property
    def taken(self) -> list[Shard]:
        """The shards of queues that are not paused."""
        if not self._pauses.has_any_queue:
            return self.all
        return [shard for shard in self._shards if not self._pauses.has_queue(shard.queue)]

    @property
    def taken_queues(self) -> list[str]:
        """The queues that are not paused."""
        return [queue for queue in self._queues if not self._pauses.has_queue(queue)]

    @property
    def is_paused(self) -> bool:
        """Whether all queues are."""
        return all(map(self._pauses.has_queue, self.queues))

    @property
    def is_whole(self) -> bool:
        """Whether the next look leaves no shard out, but for those that rest: what has rung for them is for later."""
        return not self._fruitless

    def next(self) -> list[Shard]:
        """Return the shards to try now, without those that were fruitless in this round, and those that rest."""
        self._skipped = []
        if not self._resting:
            return [shard for shard in self.taken if shard not in self._fruitless]
        now = time.monotonic()
        self._skipped = [shard for shard, rest in self._resting.items() if now < rest.until]
        left_out = {*self._skipped} | self._fruitless
        return [shard for shard in self.taken if shard not in left_out]

    def put_off(self, shards: Iterable[Shard], *, are_full: bool) -> None:
        """Leave shards alone for a while, longer each time, until one of their rows can be carried.

        Args:
            shards: All their rows are for a part of the destination that is down.
            are_full: Whether they may have more rows than were looked at.
        """
        longest = FULL_REST_SECONDS if are_full else REST_SECONDS
        for shard in shards:
            before = self._resting.get(shard)
            seconds = FIRST_REST_SECONDS if before is None else min(2 * before.seconds, longest)
            self._resting[shard] = _Rest(time.monotonic() + seconds, seconds)
            self._skipped.append(shard)

    @property
    def seconds_of_rest(self) -> float:
        """Seconds until one of the shards that the last look left out is due; infinity without any.

        A shard that was looked at counts no more: others may have emptied it, and nobody ends its rest then.
        """
        rests = (self._resting[shard].until for shard in self._skipped if shard in self._resting)
        return max(0.0, min(rests, default=math.inf) - time.monotonic())

    def take_up(self, shards: Iterable[Shard]) -> None:
        """Note that rows of these shards can be carried."""
        for shard in shards if self._resting else ():
            self._resting.pop(shard, None)

    def advance(self) -> None:
        """Begin one shard later the next time."""
        self._shards.rotate(-1)

    def found(self) -> None:
        """Note that a look has found rows."""
        self._news.note()

    def visited(self, shard: Shard) -> None:
        """Begin behind this shard the next time.

        Raises:
            ValueError: It is of no queue of these rounds.
        """
        try:
            position = self._shards.index(shard)
        except ValueError:
            msg = f"{shard} is of no queue of these rounds"
            raise ValueError(msg) from None
        self.found()
        self._shards.rotate(-1 - position)

    def widen(self) -> None:
        """Take more shards the next time: these had no more than they gave."""
        self.breadth = min(self.breadth * WIDENING, len(self._shards))

    def narrow(self) -> None:
        """Take one shard the next time: it may have enough for a hand-over, or should be tried alone."""
        self.breadth = 1

    def fruitful(self) -> None:
        """Note that a shard had rows that could be carried: while there are such, the round has no natural end."""
        if time.monotonic() - self._began > ROUND_SECONDS:
            self.finish()

    def fruitless(self, shards: Iterable[Shard]) -> None:
        """Leave shards out until the round is over: all their rows wait for another row, or were not taken."""
        self._fruitless.update(shards)

    def finish(self) -> None:
        """End the round: every shard counts again."""
        self._fruitless.clear()
        self._began = time.monotonic()
